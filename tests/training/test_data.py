"""Sources of images: each format, and one clear line for each mistake in them."""

from __future__ import annotations

import gzip
import struct
from itertools import chain
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image
from stripes import TINY

from cnngraph import training
from cnngraph.errors import CnngraphError
from cnngraph.shape import TensorShape
from cnngraph.training.data.images import TensorImages, resized, split
from cnngraph.training.data.loader import Order

GREY = TensorShape((1, 8, 8))
COLOUR = TensorShape((3, 8, 8))


def write_image(path: Path, value: int = 128, size: tuple[int, int] = (12, 10)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, 0, 0)).save(path)
    return path


def write_idx(path: Path, array: numpy.ndarray) -> None:
    header = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    data = header + array.astype("u1").tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def folder_of(root: Path, counts: dict[str, int]) -> Path:
    for name, count in counts.items():
        for index in range(count):
            write_image(root / name / f"{index}.png", 10 * index)
    return root


# formats


def test_digits_are_those_of_scikit_learn() -> None:
    data = training.open_data("digits", TensorShape((1, 28, 28)))
    assert (len(data.train.labels), len(data.val.labels)) == (1347, 450)
    assert data.classes == tuple("0123456789")
    assert data.train.batch([0, 5]).shape == (2, 1, 28, 28)


def test_a_folder_is_divided_the_same_each_time(tmp_path: Path) -> None:
    folder_of(tmp_path, {"cat": 10, "dog": 5})
    first, second = (training.open_data(tmp_path, COLOUR) for _ in range(2))
    assert first.classes == ("cat", "dog")
    assert first.val.labels.tolist() == [0, 0, 1]
    names = [[data.val.name(index) for index in range(3)] for data in (first, second)]
    assert names[0] == names[1]
    assert len(first.train.labels) == 12


def test_a_folder_with_train_and_val_keeps_its_division(tmp_path: Path) -> None:
    folder_of(tmp_path / "train", {"2": 3, "10": 2})
    folder_of(tmp_path / "val", {"10": 1})
    data = training.open_data(tmp_path, GREY)
    assert data.classes == ("2", "10")  # in the order of numbers
    assert data.val.labels.tolist() == [1]


def test_a_csv_names_images_relative_to_itself(tmp_path: Path) -> None:
    for index in range(4):
        write_image(tmp_path / "images" / f"{index}.png")
    rows = [
        f"images/{index}.png,{'ab'[index % 2]},{'train' if index < 3 else 'val'}"
        for index in range(4)
    ]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label,split", *rows]))
    data = training.open_data(tmp_path / "labels.csv", COLOUR)
    assert data.classes == ("a", "b")
    assert data.train.labels.tolist() == [0, 1, 0]
    assert data.val.name(0).endswith("images/3.png")


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_idx_files_are_read_as_published(tmp_path: Path, ending: str) -> None:
    pixels = numpy.arange(5 * 8 * 8).reshape(5, 8, 8) % 256
    for prefix, count in (("train", 5), ("t10k", 2)):
        write_idx(tmp_path / f"{prefix}-images-idx3-ubyte{ending}", pixels[:count])
        write_idx(
            tmp_path / f"{prefix}-labels-idx1-ubyte{ending}", numpy.array([0, 1, 2, 1, 0])[:count]
        )
    (tmp_path / "classes.txt").write_text("shirt\nshoe\nbag\n")
    data = training.open_data(tmp_path, GREY)
    assert data.classes == ("shirt", "shoe", "bag")
    assert data.train.batch([3])[0, 0].tolist() == pixels[3].tolist()
    assert data.val.labels.tolist() == [0, 1]


@pytest.mark.parametrize("classes", [10, 100])
def test_cifar_files_are_read_as_published(tmp_path: Path, classes: int) -> None:
    pixels = numpy.arange(3072) % 256
    labels = [7] if classes == 10 else [3, 77]
    record = bytes([*labels, *pixels.tolist()])
    names = (
        ["train.bin", "test.bin"]
        if classes == 100
        else [*(f"data_batch_{n}.bin" for n in range(1, 6)), "test_batch.bin"]
    )
    for name in names:
        (tmp_path / name).write_bytes(2 * record)
    data = training.open_data(tmp_path, TensorShape((3, 32, 32)))
    assert len(data.classes) == classes
    assert data.val.labels.tolist() == 2 * labels[-1:]
    assert data.train.batch([1]).flatten().tolist() == pixels.tolist()


def test_npz_files_contain_images_in_any_of_the_usual_names(tmp_path: Path) -> None:
    images = numpy.random.default_rng(0).integers(0, 256, (10, 8, 8, 3), dtype="u1")
    numpy.savez(tmp_path / "all.npz", images=images, labels=numpy.arange(10) % 2)
    data = training.open_data(tmp_path / "all.npz", COLOUR)
    assert (len(data.train.labels), len(data.val.labels)) == (8, 2)
    numpy.savez(
        tmp_path / "two.npz",
        x_train=images,
        y_train=numpy.arange(10),
        x_test=images[:3],
        y_test=numpy.arange(3),
    )
    data = training.open_data(tmp_path / "two.npz", COLOUR)
    assert data.val.batch([2])[0].permute(1, 2, 0).tolist() == images[2].tolist()


def test_datasets_of_python_are_data() -> None:
    class Squares(torch.utils.data.Dataset):
        classes = ("dark", "bright")

        def __len__(self) -> int:
            return 12

        def __getitem__(self, index: int) -> tuple[Image.Image, int]:
            return Image.new("L", (9, 9), 255 * (index % 2)), index % 2

    data = training.from_datasets(Squares(), Squares(), GREY)
    assert data.classes == ("dark", "bright")
    assert data.train.batch([1]).unique().tolist() == [255]
    overrides = {"epochs": 1, "batch_size": 4}
    run = training.fit(TINY, (Squares(), Squares()), overrides=overrides)
    assert run.network.compilation.params == {"num_classes": 2}

    class Module:
        """What is needed of a LightningDataModule."""

        def prepare_data(self) -> None:
            self.prepared = True

        def setup(self, stage: str) -> None:
            assert self.prepared
            self.stage = stage

        def train_dataloader(self) -> torch.utils.data.DataLoader:
            assert self.stage == "fit"
            return torch.utils.data.DataLoader(Squares(), batch_size=2)

        val_dataloader = train_dataloader

    other = training.fit(TINY, Module(), overrides=overrides)
    assert other.history[0].train_loss == run.history[0].train_loss


# shapes


def test_images_are_cropped_around_the_centre_and_converted() -> None:
    images = torch.zeros(1, 3, 8, 16, dtype=torch.uint8)
    images[..., 4:12] = 200  # all that is left of a square
    assert resized(images, COLOUR).unique().tolist() == [200]
    assert resized(images, GREY).unique().tolist() == [200]
    assert resized(images[:, :1], COLOUR).shape == (1, 3, 8, 8)
    with pytest.raises(CnngraphError, match="4 channels, the network's input has 3"):
        resized(torch.zeros(1, 4, 8, 8), COLOUR)


def test_sets_that_are_too_large_are_resized_by_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = torch.randint(0, 256, (6, 1, 12, 12), dtype=torch.uint8)
    whole = TensorImages(pixels, torch.zeros(6, dtype=torch.long), GREY)
    monkeypatch.setattr("cnngraph.training.data.images.MOST_RESIZED", 0)
    parts = TensorImages(pixels, torch.zeros(6, dtype=torch.long), GREY)
    assert parts.images.shape[-1] == 12
    assert torch.equal(parts.batch([1, 4]), whole.batch([1, 4]))


def test_files_that_are_too_many_are_read_by_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder_of(tmp_path, {"cat": 5, "dog": 5})
    kept = training.open_data(tmp_path, COLOUR)
    monkeypatch.setattr("cnngraph.training.data.files.MOST_KEPT", 0)
    read = training.open_data(tmp_path, COLOUR)
    assert torch.equal(kept.train.batch([0, 3]), read.train.batch([0, 3]))


# order


def test_every_image_is_seen_once_an_epoch_in_an_order_that_changes() -> None:
    order = Order(10, 4, seed=0)
    first = [indices for _, indices in order]
    order.epoch = 1
    second = [indices for _, indices in order]
    assert sorted(chain(*first)) == sorted(chain(*second)) == list(range(10))
    assert first != second
    order.start = 2
    assert [indices for _, indices in order] == second[2:]


def test_devices_share_a_batch() -> None:
    whole = [indices for _, indices in Order(10, 4, seed=0)]
    parts = [[indices for _, indices in Order(10, 4, 0, rank=rank, devices=2)] for rank in (0, 1)]
    for indices, *shares in zip(whole, *parts, strict=True):
        assert sorted(indices) == sorted(chain(*shares))


def test_a_last_batch_of_one_image_is_left_out() -> None:
    assert [len(indices) for _, indices in Order(9, 4, seed=0)] == [4, 4]


def test_a_split_has_a_share_of_each_class() -> None:
    labels = torch.tensor([0] * 10 + [1] * 20)
    train, val = split(labels)
    assert labels[val].tolist() == [0, 0, 1, 1, 1, 1]
    assert sorted(train + val) == list(range(30))


# mistakes


def fails(source: object, match: str, shape: TensorShape = COLOUR, **options: bool) -> None:
    with pytest.raises(CnngraphError, match=match) as caught:
        training.open_data(str(source), shape, **options)
    assert "\n" not in str(caught.value)


def test_unknown_sources_name_the_nearest(tmp_path: Path) -> None:
    fails("digit", "there is no data `digit`; did you mean `digits`")
    (tmp_path / "photos").mkdir()
    fails(tmp_path / "photo", "did you mean `.*/photos`?")
    fails("photos", "give `digits`, a folder, a .csv or an .npz")


def test_an_empty_class_is_named(tmp_path: Path) -> None:
    folder_of(tmp_path, {"cat": 2})
    (tmp_path / "dog").mkdir()
    fails(tmp_path, "the class dog is empty: .*dog has no images")


def test_folders_without_classes_are_explained(tmp_path: Path) -> None:
    fails(tmp_path, "has no subfolders")


def test_a_class_that_is_only_evaluated_is_named(tmp_path: Path) -> None:
    folder_of(tmp_path / "train", {"cat": 2})
    folder_of(tmp_path / "val", {"cat": 1, "cow": 1})
    fails(tmp_path, "val has the classes cow, which .*train does not have")


def test_sets_that_are_too_small_to_divide_are_refused(tmp_path: Path) -> None:
    folder_of(tmp_path, {"cat": 2, "dog": 2})
    fails(tmp_path, "too few images to keep a fifth of a class")


def test_bad_files_are_named_or_skipped(tmp_path: Path) -> None:
    folder_of(tmp_path, {"cat": 6, "dog": 6})
    (tmp_path / "cat" / "0.png").write_bytes(b"")
    fails(tmp_path, "cat/0.png is empty: it has zero bytes")
    (tmp_path / "cat" / "0.png").write_bytes(b"not an image")
    fails(tmp_path, "cat/0.png cannot be read as an image")
    data = training.open_data(tmp_path, COLOUR, skip_bad=True)
    assert data.skipped == (str(tmp_path / "cat" / "0.png"),)
    assert len(data.train.labels) + len(data.val.labels) == 11


def test_image_files_need_one_or_three_channels(tmp_path: Path) -> None:
    folder_of(tmp_path, {"cat": 5})
    fails(tmp_path, "input has 4 channels; image files have 1 or 3", TensorShape((4, 8, 8)))


def test_labels_out_of_range_are_named(tmp_path: Path) -> None:
    images = numpy.zeros((3, 8, 8), "u1")
    arrays = {"x_train": images, "y_train": numpy.array([0, 1, 1]), "x_test": images}
    numpy.savez(tmp_path / "a.npz", **arrays, y_test=numpy.array([0, 5, 1]))
    fails(tmp_path / "a.npz", "the label 5 of image 1 is out of range: there are 2 classes", GREY)
    numpy.savez(tmp_path / "a.npz", **arrays, y_test=numpy.array([0, -1, 1]))
    fails(tmp_path / "a.npz", "the label -1 of image 1 is out of range", GREY)


def test_damaged_arrays_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"nothing")
    fails(tmp_path / "a.npz", "cannot read .*a.npz")
    numpy.savez(tmp_path / "b.npz", pictures=numpy.zeros(3))
    fails(tmp_path / "b.npz", "has the arrays pictures; expected are")
    numpy.savez(tmp_path / "c.npz", images=numpy.zeros((2, 8)), labels=numpy.zeros(2, int))
    fails(tmp_path / "c.npz", r"`images` has the shape \(2, 8\)")
    numpy.savez(tmp_path / "d.npz", images=numpy.full((2, 8, 8), 3.0), labels=numpy.zeros(2, int))
    fails(tmp_path / "d.npz", "must be uint8, or between 0 and 1")


def test_damaged_published_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "train-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03")
    fails(tmp_path, "train-images-idx3-ubyte is not an IDX file of 3 dimensions, or is damaged")
    cifar = tmp_path / "cifar"
    cifar.mkdir()
    (cifar / "data_batch_1.bin").write_bytes(b"123")
    fails(cifar, "data_batch_1.bin is damaged: 3 bytes are not a multiple of 3073")


def test_csv_files_need_a_header_and_whole_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("name,kind\na.png,cat\n")
    fails(path, "has the columns name and kind; a header with `path` and `label` is needed")
    path.write_text("path,label\na.png,\n")
    fails(path, "a.csv:2: the path or the label is missing")
    path.write_text("path,label,split\nmissing.png,cat,train\nmissing.png,cat,val\n")
    fails(path, "missing.png: it does not exist")
