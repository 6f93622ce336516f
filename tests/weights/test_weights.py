"""Saving, loading and transfer of weights, and fine-tuning."""

from __future__ import annotations

import copy
import json
import pickle
import re
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import SPECS
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, fx, nn

import cnngraph
from cnngraph import WeightsError, freeze, load_weights, parameter_groups, save_weights, unfreeze
from cnngraph.graph.alignment import Unit, align
from cnngraph.weights import loading
from cnngraph.zoo.standalone import standalone

SMALL = """\
cnngraph: 1
name: small
input: [3, 8, 8]
params: {classes: 4, width: 8}
graph:
  - conv2d: {name: conv, out_channels: "${width}", kernel_size: 3}
  - batch_norm: {name: bn}
  - relu
  - conv2d: {name: last, out_channels: 16, kernel_size: 3}
  - global_avg_pool2d
  - flatten
  - linear: {name: fc, out_features: "${classes}"}
"""


def small(**params: object) -> fx.GraphModule:
    return cnngraph.compile(SMALL, params=params)


def shuffled(network: nn.Module, seed: int = 0) -> nn.Module:
    """Gives each tensor its own random values."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in network.state_dict().values():
            if value.is_floating_point():
                value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
            else:
                value.fill_(int(torch.randint(1, 1000, (), generator=generator)))
    return network


def state(network: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in network.state_dict().items()}


def assert_same(network: nn.Module, expected: dict[str, Tensor]) -> None:
    found = network.state_dict()
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(found[key], value), key


def assert_moved(
    network: nn.Module, before: dict[str, Tensor], file: dict[str, Tensor], report
) -> None:
    """Loaded keys have the file's values, new keys the values from before."""
    found = network.state_dict()
    assert set(report.loaded) | set(report.new) == set(found)
    assert not set(report.loaded) & set(report.new)
    for key in report.loaded:
        assert torch.equal(found[key], file[report.moved.get(key, key)]), key
    for key in report.new:
        assert torch.equal(found[key], before[key]), key


# --- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth"])
@pytest.mark.parametrize("spec", ["resnet18", "googlenet"])
def test_loading_restores_the_saved_weights(tmp_path: Path, suffix: str, spec: str) -> None:
    network = shuffled(cnngraph.compile(SPECS / f"{spec}.yaml", params={"num_classes": 5}))
    path = tmp_path / f"net{suffix}"
    save_weights(network, path)
    other = cnngraph.compile(SPECS / f"{spec}.yaml", params={"num_classes": 5}, backend="eager")
    report = load_weights(other, path)
    assert_same(other, state(network))
    assert report.kept == tuple(network.state_dict())
    assert report.new == report.unexpected == report.notes == ()
    assert str(report) == f"{path}: {len(report.kept)} of {len(report.kept)} tensors loaded"
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(other.eval()(x), network.eval()(x))
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_other_tools_read_the_files(tmp_path: Path) -> None:
    network = small()
    save_weights(network, tmp_path / "net.safetensors")
    save_weights(network, tmp_path / "net.pt")
    small().load_state_dict(load_file(tmp_path / "net.safetensors"))
    small().load_state_dict(torch.load(tmp_path / "net.pt", weights_only=True))
    with safe_open(tmp_path / "net.safetensors", framework="pt") as file:
        metadata = file.metadata()
    assert metadata["network"] == "small"
    assert metadata["cnngraph"] == cnngraph.__version__
    assert metadata["format"] == "pt"
    assert list(json.loads(metadata["modules"]).items()) == [
        ("conv", "Conv2d"), ("bn", "BatchNorm2d"), ("last", "Conv2d"), ("fc", "Linear"),
    ]  # fmt: skip


def test_load_weights_reads_files_of_compiled_networks(tmp_path: Path) -> None:
    network = shuffled(small())
    cnngraph.save_compiled(network, tmp_path / "net.cnn")
    other = small()
    assert load_weights(other, tmp_path / "net.cnn").notes == (
        "read from `state_dict` of the file",
    )
    assert_same(other, state(network))


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_memory_formats_dtypes_and_shared_tensors_survive(tmp_path: Path, suffix: str) -> None:
    network = shuffled(small()).to(memory_format=torch.channels_last).to(torch.bfloat16)  # pyright: ignore
    network.tied = nn.Linear(16, 4)
    network.tied.weight = network.fc.weight
    path = tmp_path / f"net{suffix}"
    save_weights(network, path)
    other = small().double()
    other.tied = nn.Linear(16, 4).double()
    load_weights(other, path)
    assert other.fc.weight.dtype == torch.float64
    assert torch.equal(other.tied.weight, network.fc.weight.double())
    assert torch.equal(other.conv.weight, network.conv.weight.double())
    tied = small()
    tied.tied = nn.Linear(16, 4)
    tied.tied.weight = tied.fc.weight
    load_weights(tied, path)
    assert tied.tied.weight is tied.fc.weight
    assert torch.equal(tied.fc.weight, network.fc.weight.float())


def test_failed_write_reports_the_cause_and_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = small()
    with pytest.raises(
        WeightsError, match=r"cannot write weights to .*net.bin: its name must end in .safetensors"
    ):
        save_weights(network, tmp_path / "net.bin")
    with pytest.raises(WeightsError, match=r"cannot write .*: the folder .*nowhere does not exist"):
        save_weights(network, tmp_path / "nowhere" / "net.pt")
    (tmp_path / "folder.pt").mkdir()
    with pytest.raises(WeightsError, match="it is a folder"):
        save_weights(network, tmp_path / "folder.pt")
    with pytest.raises(WeightsError, match="`conv.weight` is on the meta device and has no values"):
        save_weights(small().to("meta"), tmp_path / "net.pt")
    for name in ("net.pt", "net.safetensors"):
        path = tmp_path / name
        save_weights(network, path)
        before = path.read_bytes()
        with monkeypatch.context() as patch:
            patch.setattr("os.replace", _refuse)
            with pytest.raises(WeightsError, match=f"cannot write .*{name}: No space left"):
                save_weights(shuffled(small()), path)
        assert path.read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"folder.pt", "net.pt", "net.safetensors"}


def _refuse(*arguments: object) -> None:
    raise OSError(28, "No space left on device")


def test_numbers_that_are_not_loaded_from_pt_files_are_not_written_to_them(tmp_path: Path) -> None:
    network = small()
    network.register_buffer("odd", torch.zeros(2, dtype=torch.uint16))
    with pytest.raises(WeightsError, match="`odd` is of torch.uint16, which only .safetensors"):
        save_weights(network, tmp_path / "net.pt")
    save_weights(network, tmp_path / "net.safetensors")
    cnngraph.load_weights(network, tmp_path / "net.safetensors")


def test_a_dtype_that_safetensors_lacks_is_an_error(tmp_path: Path) -> None:
    network = small()
    network.register_buffer("odd", torch.zeros(2, dtype=torch.complex128))
    with pytest.raises(WeightsError, match="cannot write .*net.safetensors: .*complex128"):
        save_weights(network, tmp_path / "net.safetensors")
    assert not list(tmp_path.iterdir())


def test_folder_without_write_permission(tmp_path: Path) -> None:
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        try:
            (tmp_path / "probe").touch()
        except PermissionError:
            for name in ("net.pt", "net.safetensors"):
                with pytest.raises(WeightsError, match="Permission denied"):
                    save_weights(small(), tmp_path / name)
        else:
            pytest.skip("this user may write everywhere")
    finally:
        tmp_path.chmod(stat.S_IRWXU)


class Evil:
    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return (print, ("code was run",))


def test_files_without_weights_are_errors_and_change_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = small()
    before = state(network)
    save_weights(network, tmp_path / "good.pt")
    save_weights(network, tmp_path / "good.safetensors")
    good, safe = (tmp_path / "good.pt").read_bytes(), (tmp_path / "good.safetensors").read_bytes()
    start = good.index(b"\x80\x02")
    cases: list[tuple[str, bytes | None, str]] = [
        ("missing.pt", None, "cannot read .*missing.pt: it does not exist"),
        ("empty.pt", b"", "empty.pt has no weights: it was written neither"),
        (
            "page.pth",
            b"<!DOCTYPE html><html>Not found",
            "page.pth has no weights: it was written neither",
        ),
        ("cut.pt", good[: len(good) // 2], "cut.pt is damaged: it is truncated"),
        ("bits.pt", good[: start + 40] + b"\0\0\0\0" + good[start + 44 :], "bits.pt is damaged"),
        ("cut.safetensors", safe[:-10], "cut.safetensors is damaged: "),
        ("header.safetensors", safe[:60], "header.safetensors is damaged: "),
        (
            "legacy.pt",
            pickle.dumps(Evil(), protocol=2),
            "legacy.pt is rejected: it contains .*print, and reading it could run code",
        ),
    ]
    torch.save({"state_dict": before, "more": Evil()}, tmp_path / "evil.pt")
    cases.append(
        (
            "evil.pt",
            (tmp_path / "evil.pt").read_bytes(),
            "evil.pt is rejected: it contains .*print",
        )
    )
    torch.save(before, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    old = (tmp_path / "old.pt").read_bytes()
    load_weights(small(), tmp_path / "old.pt")
    cases += [
        (f"old{size}.pt", old[:size], f"old{size}.pt is damaged: ")
        for size in (20, 200, len(old) // 2)
    ]
    torch.save({"epoch": 3, "state_dict": {}}, tmp_path / "epoch.pt")
    cases.append(
        (
            "epoch.pt",
            (tmp_path / "epoch.pt").read_bytes(),
            "epoch.pt has no weights: its keys are epoch, state_dict",
        )
    )
    torch.save([1, 2], tmp_path / "list.pt")
    cases.append(
        (
            "list.pt",
            (tmp_path / "list.pt").read_bytes(),
            "list.pt has no weights: it contains a list",
        )
    )
    for name, content, message in cases:
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(WeightsError, match=message) as caught:
            load_weights(network, tmp_path / name)
        assert "\n" not in str(caught.value)
        assert isinstance(caught.value, cnngraph.CnngraphError)
    with pytest.raises(WeightsError, match="it is a folder"):
        load_weights(network, tmp_path)
    assert_same(network, before)
    assert "code was run" not in capsys.readouterr().out


# --- checkpoints of other tools -------------------------------------------------------------------


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "model_state_dict"])
def test_checkpoints_and_prefixes_are_reported(tmp_path: Path, wrapper: str) -> None:
    network = shuffled(small())
    prefixed = {f"_orig_mod.module.{key}": value for key, value in network.state_dict().items()}
    torch.save({"epoch": 3, wrapper: prefixed, "optimizer": {"state": {}}}, tmp_path / "net.pt")
    other = small()
    report = load_weights(other, tmp_path / "net.pt")
    assert_same(other, state(network))
    assert report.notes == (
        f"read from `{wrapper}` of the file",
        "removed the prefix `_orig_mod.` of torch.compile",
        "removed the prefix `module.` of DataParallel or DistributedDataParallel",
    )
    assert "removed the prefix `module.`" in str(report)


def test_wrapped_networks_are_unwrapped(tmp_path: Path) -> None:
    network = shuffled(small())
    save_weights(nn.DataParallel(network), tmp_path / "net.safetensors")
    other = small()
    report = load_weights(torch.compile(other), tmp_path / "net.safetensors")  # pyright: ignore
    assert not report.notes
    assert_same(other, state(network))


def test_a_prefix_of_some_keys_stays() -> None:
    weights = state(small())
    mixed = {
        ("module." if index else "") + key: value
        for index, (key, value) in enumerate(weights.items())
    }
    with pytest.raises(WeightsError, match="unexpected in the file"):
        load_weights(small(), mixed)


def test_a_prefix_that_the_network_has_itself_stays() -> None:
    text = (
        "cnngraph: 1\nname: held\ninput: [3]\ngraph:\n  - sequential: {name: module, body: "
        "[linear: {name: fc, out_features: 2}]}\n"
    )
    network = shuffled(cnngraph.compile(text))
    other = cnngraph.compile(text)
    assert load_weights(other, network.state_dict()).notes == ()
    assert_same(other, state(network))


def test_entries_that_are_not_tensors_are_ignored() -> None:
    network = shuffled(small())
    other = small()
    report = load_weights(other, {**network.state_dict(), "epoch": 3})  # pyright: ignore
    assert report.file == "the state dict"
    assert report.notes == ("ignored entries that are not tensors: epoch",)
    assert_same(other, state(network))


def test_older_keys_of_densenets_are_renamed(tmp_path: Path) -> None:
    params = {"num_classes": 5, "growth": 4, "width": 8}
    network = shuffled(cnngraph.compile(SPECS / "densenet121.yaml", params=params))
    published = {
        re.sub(r"(denselayer\d+\.(?:norm|conv))([12])\.", r"\1.\2.", key): value
        for key, value in network.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in published
    torch.save(published, tmp_path / "densenet.pth")
    other = cnngraph.compile(SPECS / "densenet121.yaml", params=params)
    report = load_weights(other, tmp_path / "densenet.pth")
    for key, value in network.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            assert torch.equal(other.state_dict()[key], value), key
    assert other.state_dict()["features.norm0.num_batches_tracked"] == 0
    renamed, counters = report.notes
    assert renamed == (
        "DenseNet's older keys: renamed 580, for example features.denseblock1.denselayer1.norm.1.weight to "
        "features.denseblock1.denselayer1.norm1.weight"
    )
    assert (
        counters == "no num_batches_tracked in the file, as before torch 0.4.1: 121 are unchanged"
    )
    assert load_weights(other, network.state_dict()).notes == ()


# --- files that do not fit ------------------------------------------------------------------------


def test_file_that_does_not_fit_changes_nothing_and_reports_every_difference() -> None:
    network = small(classes=7)
    before = state(network)
    weights = state(shuffled(small()))
    weights["bn.scale"] = weights.pop("bn.weight")
    with pytest.raises(WeightsError) as caught:
        load_weights(network, weights)
    assert str(caught.value).splitlines() == [
        "the state dict does not fit small: nothing was loaded",
        "  missing in the file (1):",
        "    bn.weight (8,) (the file has bn.scale of this shape)",
        "  unexpected in the file (1):",
        "    bn.scale (8,)",
        "  of another shape (2):",
        "    fc.weight: (4, 16) in the file, (7, 16) here",
        "    fc.bias: (4,) in the file, (7,) here",
        '  help: load_weights(..., skip=["bn.scale", "bn.weight", "fc"]) loads the rest, and '
        "leaves them unchanged",
        "  help: load_weights(..., transfer=True) loads what an edit left unchanged",
    ]
    report = caught.value.report
    assert report is not None
    assert set(report.missing) == {"bn.weight"}
    assert report.unexpected == ("bn.scale",)
    assert report.mismatched["fc.bias"] == ((4,), (7,))
    assert_same(network, before)
    copied = pickle.loads(pickle.dumps(caught.value))
    assert str(copied) == str(caught.value)
    assert copied.report == report


def test_long_lists_are_cut() -> None:
    network = cnngraph.compile(SPECS / "resnet18.yaml")
    with pytest.raises(WeightsError) as caught:
        load_weights(network, small().state_dict())
    lines = str(caught.value).splitlines()
    start = lines.index("  missing in the file (120):")
    assert lines[start + 11] == "    and 110 more"
    assert "skip" not in str(caught.value)


def test_copy_that_cannot_be_made_is_refused_before_any_is_made(tmp_path: Path) -> None:
    network = small()
    before = state(network)
    weights = state(shuffled(small()))
    weights["fc.bias"] = weights["fc.bias"].to_sparse()
    with pytest.raises(
        WeightsError, match="`fc.bias` of the state dict: it is not an ordinary tensor"
    ):
        load_weights(network, weights)
    weights["fc.bias"] = torch.zeros(4, dtype=torch.complex64)
    with pytest.raises(WeightsError, match="is not an ordinary tensor: .*complex"):
        load_weights(network, weights)
    assert_same(network, before)
    with pytest.raises(WeightsError, match="on the meta device"):
        load_weights(small().to("meta"), before)


def test_not_strict_loads_whole_common_modules() -> None:
    network = small(width=6)
    before = state(network)
    file = state(shuffled(small()))
    del file["fc.bias"]
    report = load_weights(network, file, strict=False)
    assert_moved(network, before, file, report)
    assert report.kept == ("fc.weight",)  # not the counter of `bn`, nor the bias of `last`
    assert dict(report.missing) == {
        "bn.num_batches_tracked": "its module has another shape",
        "last.bias": "its module has another shape",
        "fc.bias": "",
    }
    assert report.mismatched["last.weight"] == ((16, 8, 3, 3), (16, 6, 3, 3))
    assert "last: bias (its module has another shape)" in str(report)


@pytest.mark.parametrize("options", [{"strict": False}, {"transfer": True}])
def test_file_without_matching_tensors_is_an_error(options: dict[str, bool]) -> None:
    with pytest.raises(
        WeightsError, match="nothing in the state dict fits small: nothing was loaded"
    ):
        load_weights(small(), {"elsewhere.weight": torch.zeros(3)}, **options)


# --- fine-tuning ----------------------------------------------------------------------------------


def test_skip_leaves_a_head_unchanged(tmp_path: Path) -> None:
    file = shuffled(cnngraph.compile(SPECS / "resnet18.yaml"))
    save_weights(file, tmp_path / "net.safetensors")
    network = cnngraph.compile(SPECS / "resnet18.yaml", params={"num_classes": 10})
    before = state(network)
    with pytest.raises(
        WeightsError,
        match=r'load_weights\(..., skip=\["fc"\]\) loads the rest, and leaves them unchanged',
    ):
        load_weights(network, tmp_path / "net.safetensors")
    assert_same(network, before)
    with pytest.raises(
        WeightsError,
        match=r'compile with params={"num_classes": 1000} .* net.reset_classifier\(10\)',
    ):
        load_weights(network, tmp_path / "net.safetensors")
    for skip in ("fc", ["fc.*"], ["*.bias", "fc.weight"]):
        network.load_state_dict(before)
        report = load_weights(network, tmp_path / "net.safetensors", skip=skip)
        assert_moved(network, before, state(file), report)
        assert {"fc.weight", "fc.bias"} <= set(report.skipped)
    assert len(load_weights(network, tmp_path / "net.safetensors", skip="fc").loaded) == 120
    assert "new, skipped (2):\n    fc: weight, bias" in str(
        load_weights(network, file.state_dict(), skip="fc")
    )


def test_tensors_only_in_the_file_may_be_skipped() -> None:
    """GoogLeNet's published file holds side heads, which the network without them does not."""
    file = shuffled(cnngraph.compile(SPECS / "googlenet_aux.yaml"))
    network = cnngraph.compile(SPECS / "googlenet.yaml")
    with pytest.raises(WeightsError) as caught:
        load_weights(network, file.state_dict())
    assert 'help: load_weights(..., skip=["aux1", "aux2"]) loads the rest\n' in str(caught.value)
    report = load_weights(network, file.state_dict(), skip=["aux?"])
    assert report.unexpected == ()
    assert len(report.kept) == len(network.state_dict())


def test_patterns_that_match_nothing_are_errors() -> None:
    network = small()
    before = state(network)
    with pytest.raises(
        WeightsError, match=r"the pattern `cnv` matches nothing; did you mean `conv`\?"
    ):
        load_weights(network, shuffled(small()).state_dict(), skip=["fc", "cnv"])
    assert_same(network, before)
    resnet = cnngraph.compile(SPECS / "resnet18.yaml")
    with pytest.raises(
        WeightsError, match=r"`layer5.\*` matches nothing; did you mean `layer[1-4].\*`\?"
    ):
        freeze(resnet, "layer5.*")
    with pytest.raises(WeightsError, match="there are: conv, bn, last, fc"):
        unfreeze(network, "xyz123")
    with pytest.raises(WeightsError, match="did you mean `fc.bias`"):
        parameter_groups(network, {"fc.bais": 0.1})
    for function in (freeze, unfreeze):
        with pytest.raises(WeightsError, match="no pattern is given"):
            function(network)
    assert all(parameter.requires_grad for parameter in resnet.parameters())


@pytest.mark.parametrize("backend", ["fused", "eager"])
def test_frozen_parameters_do_not_change_in_training(backend: cnngraph.options.Backend) -> None:
    network = cnngraph.compile(SPECS / "resnet18.yaml", params={"num_classes": 3}, backend=backend)
    frozen = freeze(network, "conv1", "bn1", "layer[1-3]")
    assert len(frozen) == 45
    before = state(network)
    network.train()
    assert network.layer4.training
    assert network.layer4[0].bn1.training if isinstance(network.layer4, nn.Sequential) else True
    assert network.get_submodule("layer4.0.bn1").training
    assert not network.get_submodule("layer1.0.bn1").training
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    nn.functional.cross_entropy(
        network(torch.randn(4, 3, 32, 32)), torch.tensor([0, 1, 2, 0])
    ).backward()
    optimizer.step()
    for key, value in network.state_dict().items():
        trains = key.startswith(("layer4", "fc"))
        assert torch.equal(value, before[key]) is not trains, key


def test_norms_stay_frozen_in_copies_until_unfrozen() -> None:
    network = small()
    assert freeze(network, "conv", "bn") == ("conv.weight", "conv.bias", "bn.weight", "bn.bias")
    for other in (network, copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert other.train().training
        assert not other.bn.training
        assert other.conv.training
        assert not other.bn.weight.requires_grad
        assert other.eval().train(True) is other
        assert not other.bn.training
        assert other.bn.train() is other.bn
        unfreeze(other, "bn")
        assert other.bn.training
        assert other.bn.weight.requires_grad
        assert not other.conv.weight.requires_grad
        assert not other.eval().bn.training
        assert other.train().bn.training
    frozen = small().eval()
    freeze(frozen, "bn")
    unfreeze(frozen, "*")
    assert not frozen.bn.training
    assert all(parameter.requires_grad for parameter in frozen.parameters())


def test_traced_networks_stay_frozen() -> None:
    network = cnngraph.compile(SMALL, backend="eager")
    freeze(network, "bn")
    network.train()
    x = torch.randn(2, 3, 8, 8)
    expected = network(x)
    exported = torch.export.export(network, (x,), strict=False).module()
    torch.testing.assert_close(exported(x), expected)
    compiled = torch.compile(network, backend="eager")
    torch.testing.assert_close(compiled(x), expected)
    assert network.bn.num_batches_tracked == 0


def test_norm_with_a_trainable_parameter_follows_train() -> None:
    network = small()
    freeze(network, "*.bias")
    assert network.train().bn.training
    freeze(network, "bn.weight")
    assert not network.train().bn.training
    unfreeze(network, "bn.bias")
    assert network.train().bn.training
    plain = cnngraph.compile(SMALL.replace("name: bn}", "name: bn, affine: false}"))
    assert freeze(plain, "bn") == ()
    assert not plain.train().bn.training
    no_statistics = cnngraph.compile(
        SMALL.replace("name: bn}", "name: bn, track_running_stats: false}")
    )
    freeze(no_statistics, "*")
    assert no_statistics.train().bn.training  # it has only the batch's


def test_every_parameter_is_in_one_group() -> None:
    network = cnngraph.compile(SPECS / "resnet18.yaml")
    groups = parameter_groups(
        network,
        {"layer4.1.conv2": 1e-5, "layer4.*": 1e-4, "fc.*": 1e-3},
        default=1e-6,
        weight_decay=0.05,
    )
    names = {parameter: name for name, parameter in network.named_parameters()}
    parameters = [parameter for group in groups for parameter in group["params"]]
    assert len(parameters) == len(set(parameters)) == len(names)
    assert set(parameters) == set(names)
    found = {group["name"]: {names[parameter] for parameter in group["params"]} for group in groups}
    assert list(found) == [
        "layer4.1.conv2", "layer4.*", "layer4.*, no decay", "fc.*", "fc.*, no decay", "default", "default, no decay",
    ]  # fmt: skip
    assert found["layer4.1.conv2"] == {"layer4.1.conv2.weight"}
    assert found["fc.*, no decay"] == {"fc.bias"}
    assert "layer4.1.conv1.weight" in found["layer4.*"]
    assert "layer4.1.bn2.weight" in found["layer4.*, no decay"]
    settings = {group["name"]: (group["lr"], group["weight_decay"]) for group in groups}
    assert settings["layer4.*"] == (1e-4, 0.05)
    assert settings["fc.*, no decay"] == (1e-3, 0.0)
    assert settings["default"] == (1e-6, 0.05)
    optimizer = torch.optim.AdamW(groups)
    assert [group["lr"] for group in optimizer.param_groups] == [group["lr"] for group in groups]


def test_groups_leave_unspecified_options_to_the_optimizer() -> None:
    network = small()
    freeze(network, "conv")
    groups = parameter_groups(network, {"fc": 0.1})
    assert [(group["name"], group.get("lr"), group.get("weight_decay")) for group in groups] == [
        ("fc", 0.1, None), ("default", None, None),
    ]  # fmt: skip
    optimizer = torch.optim.SGD(groups, lr=0.5, weight_decay=0.25)
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.5]
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.25, 0.25]
    assert sum(len(group["params"]) for group in groups) == len(list(network.parameters()))
    with pytest.raises(
        WeightsError,
        match="no parameter is left for the pattern `fc.weight`: patterns before it match them",
    ):
        parameter_groups(network, {"fc": 0.1, "fc.weight": 0.2})


# --- edited specs ---------------------------------------------------------------------------------

CHAIN = """\
cnngraph: 1
name: chain
input: [3, 32, 32]
graph:
  - sequential:
      name: features
      body:
        - conv2d: {out_channels: 8, kernel_size: 3, padding: 1}
        - batch_norm
        - relu
        - conv2d: {out_channels: 12, kernel_size: 3, padding: 1}
        - batch_norm
        - relu
        - max_pool2d: 2
        - conv2d: {out_channels: 16, kernel_size: 3, padding: 1}
        - batch_norm
        - relu
  - global_avg_pool2d
  - flatten
  - linear: {name: fc, out_features: 5}
"""


def edited(text: str, old: str, new: str) -> str:
    assert text.count(old) == 1
    return text.replace(old, new)


@pytest.fixture(params=["safetensors", "pt", "a state dict"])
def carry(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Callable[..., tuple[nn.Module, cnngraph.LoadReport]]:
    """Moves the weights of one spec to another, and checks the report."""

    def run(
        old: str | Path, new: str | Path, params=None, new_params=None
    ) -> tuple[nn.Module, cnngraph.LoadReport]:
        source = shuffled(cnngraph.compile(old, params=params))
        target = shuffled(cnngraph.compile(new, params=new_params), seed=1)
        before = state(target)
        weights = source.state_dict()
        if request.param != "a state dict":
            weights = tmp_path / f"net.{request.param}"
            save_weights(source, weights)
        report = load_weights(target, weights, transfer=True)
        assert_moved(target, before, state(source), report)
        return target, report

    return run


def modules(keys) -> dict[str, str]:
    """Moved keys as module -> module."""
    return {here.rpartition(".")[0]: there.rpartition(".")[0] for here, there in keys.items()}


@pytest.mark.parametrize("spec", ["resnet18", "googlenet", "densenet121"])
def test_the_same_spec_keeps_everything(carry, spec: str) -> None:
    _, report = carry(SPECS / f"{spec}.yaml", SPECS / f"{spec}.yaml")
    assert report.moved == {}
    assert report.new == report.unexpected == report.notes == ()


def test_a_layer_in_the_middle_shifts_all_numbers(carry) -> None:
    layer = (
        "        - conv2d: {out_channels: 10, kernel_size: 1}\n        - batch_norm\n        "
        "- relu\n"
    )
    old = "        - conv2d: {out_channels: 16"
    network, report = carry(CHAIN, edited(CHAIN, old, layer.replace("10", "12") + old))
    assert modules(report.moved) == {"features.10": "features.7", "features.11": "features.8"}
    assert set(modules(dict.fromkeys(report.missing, ""))) == {"features.7", "features.8"}
    assert report.missing["features.7.weight"] == "features.7 of the file is features.10 here"
    assert not report.mismatched
    assert {"features.0.weight", "features.1.running_var", "features.3.weight", "fc.bias"} <= set(
        report.kept
    )
    assert not report.unexpected
    assert "features.10.* <- features.7.* (2)" in str(report)
    assert network is not None
    # in front, and changing what comes after it
    _, report = carry(
        CHAIN,
        edited(
            CHAIN,
            "        - conv2d: {out_channels: 12",
            layer + "        - conv2d: {out_channels: 12",
        ),
    )
    assert modules(report.moved) == {
        "features.7": "features.4",
        "features.10": "features.7",
        "features.11": "features.8",
    }
    assert report.missing["features.4.weight"] == "features.4 of the file is features.7 here"
    assert "features.6.weight" in report.missing  # it reads 10 channels now
    assert report.mismatched["features.3.weight"] == ((12, 8, 3, 3), (10, 8, 1, 1))


def test_weights_move_when_a_layer_is_removed(carry) -> None:
    removed = edited(
        CHAIN,
        "        - conv2d: {out_channels: 12, kernel_size: 3, padding: 1}\n        - batch_norm\n "
        "       - relu\n",
        "",
    )
    _, report = carry(CHAIN, removed)
    assert modules(report.moved) == {"features.5": "features.8"}
    assert set(report.new) == {"features.4.weight", "features.4.bias"}  # it reads other channels
    assert set(modules(dict.fromkeys(report.unexpected, ""))) == {
        "features.3",
        "features.4",
        "features.7",
    }


def test_a_layer_without_weights_shifts_all(carry) -> None:
    shifted = edited(
        CHAIN,
        "        - conv2d: {out_channels: 8",
        "        - identity\n        - conv2d: {out_channels: 8",
    )
    _, report = carry(CHAIN, shifted)
    assert modules(report.moved) == {
        f"features.{index + 1}": f"features.{index}" for index in (0, 1, 3, 4, 7, 8)
    }
    assert set(report.kept) == {"fc.weight", "fc.bias"}
    assert not report.new


def test_names_that_end_in_numbers_shift_too(carry) -> None:
    text = """\
cnngraph: 1
name: tiny
input: [3, 16, 16]
params: {widths: [8, 16, 24]}
graph:
  - repeat:
      over: ${widths}
      as: width
      body:
        - conv2d: {name: "conv${i}", out_channels: "${width}", kernel_size: 3, padding: 1, bias: false}
        - batch_norm: {name: "bn${i}"}
        - relu
"""
    _, report = carry(text, text, new_params={"widths": [8, 8, 16, 24]})
    assert modules(report.moved) == {"conv2": "conv1", "conv3": "conv2", "bn2": "bn1", "bn3": "bn2"}
    assert set(modules(dict.fromkeys(report.missing, ""))) == {"conv1", "bn1"}


def test_weights_move_to_renamed_blocks(carry, tmp_path: Path) -> None:
    text = standalone(SPECS / "resnet18.yaml").split("expect:")[0]
    _, report = carry(
        text, edited(text, "name: layer${stage + 1}", "name: stage${stage + 1}_blocks")
    )
    assert not report.new
    assert not report.unexpected
    assert len(report.moved) == 114
    for here, there in report.moved.items():
        assert there == re.sub(r"stage(\d)_blocks", r"layer\1", here)
    assert "stage1_blocks.* <- layer1.* (24)" in str(report)
    _, report = carry(
        CHAIN, CHAIN.replace("name: features", "name: body").replace("name: fc", "name: head")
    )
    assert not report.new
    assert report.moved["body.7.weight"] == "features.7.weight"
    assert report.moved["head.bias"] == "fc.bias"


def test_weights_move_into_and_out_of_an_enclosing_network(carry) -> None:
    inner = CHAIN.split("graph:\n")[1].replace("\n", "\n    ").rstrip()
    wrapped = (
        CHAIN.split("graph:\n")[0]
        + "graph:\n  - sequential:\n      name: backbone\n      body:\n    "
        + inner
        + "\n"
    )
    wrapped = wrapped.replace(
        "      body:\n      - sequential", "      body:\n        - sequential", 1
    )
    wrapped = re.sub(r"^      - ", "        - ", wrapped, flags=re.MULTILINE)
    wrapped = wrapped.replace("          name: features\n", "            name: features\n").replace(
        "          body:\n            - conv2d", "            body:\n            - conv2d"
    )
    _, report = carry(CHAIN, wrapped)
    assert not report.new
    assert all(here == f"backbone.{there}" for here, there in report.moved.items())
    network = shuffled(cnngraph.compile(wrapped))
    target = cnngraph.compile(CHAIN)
    report = load_weights(target, network.state_dict(), transfer=True)
    assert report.notes == ("removed the prefix `backbone.`",)
    assert_same(
        target, {key.removeprefix("backbone."): value for key, value in state(network).items()}
    )


def test_a_widened_stem_changes_only_what_reads_it(carry) -> None:
    text = edited(
        standalone(SPECS / "resnet18.yaml"),
        "- conv2d: {name: conv1, out_channels: 64, kernel_size: 7,",
        "- conv2d: {name: conv1, out_channels: 96, kernel_size: 7,",
    )
    text = text.split("expect:")[0]
    _, report = carry(SPECS / "resnet18.yaml", text)
    assert not report.moved
    assert report.mismatched["conv1.weight"] == ((64, 3, 7, 7), (96, 3, 7, 7))
    assert "conv1.weight: (64, 3, 7, 7) in the file, (96, 3, 7, 7) here" in str(report)
    assert report.missing["bn1.num_batches_tracked"] == "its module has another shape"
    assert report.mismatched["layer1.0.conv1.weight"] == ((64, 64, 3, 3), (64, 96, 3, 3))
    assert "layer1.0.bn1.weight" in report.kept
    assert {key for key in report.new if not key.startswith(("conv1", "bn1", "layer1.0"))} == set()
    assert report.unexpected == ()
    assert report.notes == ()


def test_a_network_widened_throughout_takes_nothing_from_other_stages(carry) -> None:
    """Its first stage has the shapes of the file's second, at another place."""
    text = (
        standalone(SPECS / "resnet18.yaml")
        .replace("${64 * 2 ** stage}", "${128 * 2 ** stage}")
        .split("expect:")[0]
    )
    _, report = carry(SPECS / "resnet18.yaml", text)
    assert not report.moved
    assert set(report.kept) == {
        "conv1.weight",
        *(key for key in report.kept if key.startswith("bn1.")),
    }


def test_another_number_of_classes_changes_only_the_classifier(carry) -> None:
    _, report = carry(
        SPECS / "googlenet.yaml", SPECS / "googlenet.yaml", new_params={"num_classes": 7}
    )
    assert not report.moved
    assert not report.missing
    assert dict(report.mismatched) == {
        "fc.weight": ((1000, 1024), (7, 1024)),
        "fc.bias": ((1000,), (7,)),
    }


def test_a_bias_that_was_added_leaves_the_weight(carry) -> None:
    text = CHAIN.replace(
        "{out_channels: 16, kernel_size: 3, padding: 1}",
        "{out_channels: 16, kernel_size: 3, padding: 1, bias: false}",
    )
    _, report = carry(text, CHAIN)
    assert dict(report.missing) == {"features.7.bias": ""}
    assert not report.mismatched
    assert not report.unexpected
    _, report = carry(CHAIN, text)
    assert not report.new
    assert report.unexpected == ("features.7.bias",)


def test_additional_equal_blocks_keep_their_number_and_are_reported(carry) -> None:
    _, report = carry(
        SPECS / "resnet18.yaml", SPECS / "resnet18.yaml", new_params={"layers": [3, 2, 2, 2]}
    )
    assert not report.moved
    assert {key.rsplit(".", 2)[0] for key in report.new} == {"layer1.2"}
    assert len(report.kept) == 122
    assert report.notes == (
        "by number alone: layer1.0, layer1.1 kept; layer1.2, of the same shapes, is new",
    )


def test_ambiguous_modules_stay_new_and_are_reported(carry) -> None:
    head = "cnngraph: 1\nname: twins\ninput: [8, 8, 8]\ngraph:\n"
    conv = "  - conv2d: {{name: {}, out_channels: 8, kernel_size: 1}}\n"
    old = head + "".join(map(conv.format, ("first", "old", "last")))
    new = head + "".join(map(conv.format, ("first", "one", "two", "last")))
    _, report = carry(old, new)
    assert not report.moved
    assert set(report.missing.values()) == {"ambiguous: may be old of the file"}
    assert set(report.unexpected) == {"old.weight", "old.bias"}
    _, report = carry(new, old)
    assert set(report.missing.values()) == {"ambiguous: may be one or two of the file"}
    assert "old: weight, bias (ambiguous: may be one or two of the file)" in str(report)


def test_modules_of_another_class_do_not_match(tmp_path: Path) -> None:
    text = CHAIN.replace("- batch_norm\n", "- layer_norm\n")
    source = shuffled(cnngraph.compile(text))
    save_weights(source, tmp_path / "net.safetensors")
    target = cnngraph.compile(text.replace("- layer_norm\n", "- group_norm: 2\n"))
    report = load_weights(target, tmp_path / "net.safetensors", transfer=True)
    assert report.missing["features.1.weight"] == "a LayerNorm2d in the file, a GroupNorm here"
    assert "features.0.weight" in report.kept
    assert "features.1.weight" in load_weights(target, source.state_dict(), transfer=True).kept


def test_without_an_order_numbers_and_single_candidates_are_moved(tmp_path: Path) -> None:
    """Safetensors files of other tools have sorted keys."""
    source = shuffled(cnngraph.compile(CHAIN))
    save_file(
        {key: value.contiguous() for key, value in state(source).items()},
        tmp_path / "net.safetensors",
    )
    text = edited(
        CHAIN,
        "        - conv2d: {out_channels: 8",
        "        - identity\n        - conv2d: {out_channels: 8",
    )
    target = cnngraph.compile(text.replace("name: fc", "name: head"))
    before = state(target)
    report = load_weights(target, tmp_path / "net.safetensors", transfer=True)
    assert_moved(target, before, state(source), report)
    assert not report.new
    assert report.moved["features.9.running_var"] == "features.8.running_var"
    assert report.moved["features.8.weight"] == "features.7.weight"
    assert report.moved["head.weight"] == "fc.weight"
    assert (
        "the file does not record the order of its modules: fewer moves can be found"
        in report.notes
    )


def test_skip_works_with_transfer() -> None:
    source = shuffled(cnngraph.compile(CHAIN))
    target = cnngraph.compile(edited(CHAIN, "name: fc", "name: head"))
    before = state(target)
    report = load_weights(target, source.state_dict(), transfer=True, skip="head")
    assert_moved(target, before, state(source), report)
    assert report.skipped == ("head.weight", "head.bias")
    assert report.unexpected == ("fc.weight", "fc.bias")


def unit(path: str, size: int, kind: str = "") -> Unit:
    return Unit(path, {"weight": (size,)}, kind)


@pytest.mark.parametrize(
    ("file", "here", "origins", "ambiguous"),
    [
        ("a1 b2 c3", "a1 b2 c3", "a<a b<b c<c", ""),
        ("a1 b2 c3", "a1 x2 c3", "a<a x<b c<c", ""),
        ("a1 b2 c3", "x3 y2 z1", "", "x y z"),  # one of the three, and no telling which
        ("s.a1 s.b1", "t.a1 t.b1", "t.a<s.a t.b<s.b", ""),
        ("s.a1", "t.a1 u.b1", "t.a<s.a", ""),  # the likelier path
        ("s.a1", "t.a1 u.a1", "", "t.a u.a"),
        ("0:1 1:2 2:1", "0:2 1:1", "0<1 1<2", ""),
        ("a1 b1", "b1 a1", "a<a b<b", ""),
        ("a1 b2", "a2 b1", "", ""),  # names on both sides stand for themselves
    ],
)
def test_only_unambiguous_modules_are_aligned(
    file: str, here: str, origins: str, ambiguous: str
) -> None:
    def units(text: str) -> list[Unit]:
        return [unit(word[:-1].rstrip(":"), int(word[-1])) for word in text.split()]

    found = align(units(here), units(file), ordered=True)
    assert found.origins == dict(pair.split("<") for pair in origins.split())
    assert set(found.ambiguous) == set(ambiguous.split())


def test_large_networks_are_aligned_in_moderate_time() -> None:
    file = [unit(f"old.{index}", index % 7) for index in range(600)]
    here = [unit(f"new.{index}", index % 7) for index in range(600)]
    assert align(here, file, ordered=True).origins == {
        f"new.{index}": f"old.{index}" for index in range(600)
    }


def test_the_renamings_are_tried_only_where_the_keys_need_them() -> None:
    weights = {"denselayer1.norm.1.weight": torch.zeros(2)}
    network = nn.Module()
    network.denselayer1 = nn.Module()
    network.denselayer1.norm = nn.ModuleList([nn.Module(), nn.Module()])
    network.denselayer1.norm[1].weight = nn.Parameter(torch.ones(2))
    assert load_weights(network, weights).notes == ()
    assert list(loading.RENAMINGS) == ["DenseNet's older keys"]


def test_a_file_of_the_whole_network_fits_one_that_returns_features(tmp_path: Path) -> None:
    whole = shuffled(cnngraph.compile(SPECS / "googlenet_aux.yaml")).eval()
    save_weights(whole, tmp_path / "whole.pt")
    features = cnngraph.compile(SPECS / "googlenet_aux.yaml", outputs=["inception3b"]).eval()
    report = load_weights(features, tmp_path / "whole.pt")
    assert set(report.kept) == set(features.state_dict())
    assert_same(features, {key: whole.state_dict()[key] for key in features.state_dict()})
    with pytest.raises(WeightsError, match="unexpected in the file"):
        load_weights(features, {**whole.state_dict(), "inception3c.conv.weight": torch.ones(1)})
