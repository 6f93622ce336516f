"""However a spec is written, `check` answers soon, in little memory, and with few diagnostics."""

from __future__ import annotations

import cProfile
import gc
import json
import os
import pstats
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import cnngraph
from cnngraph.errors import MAX_MISTAKES
from cnngraph.graph.input_sizes import MOST_EVALUATIONS
from cnngraph.spec.files import MAX_FILES
from cnngraph.spec.loader import load_spec
from cnngraph.spec.yaml import MAX_BYTES, read_source

HEAD = "cnngraph: 1\nname: net\ninput: [3, 8, 8]\n"
LIBRARY = "cnngraph: 1\nblocks:\n"


def check(folder: Path, text: str, **others: str) -> cnngraph.Report:
    for name, other in others.items():
        (folder / f"{name}.yaml").write_text(other)
    path = folder / "net.yaml"
    path.write_text(text)
    return cnngraph.check(path)


def codes(report: cnngraph.Report) -> set[str]:
    return {diagnostic.code for diagnostic in report.diagnostics}


def imports(names: list[str]) -> str:
    return f"{HEAD}imports: [{', '.join(names)}]\ngraph: [relu]\n"


MANY = 20_000


@pytest.mark.parametrize(
    "text",
    [
        imports([f"m{i}.yaml" for i in range(MANY)]),
        HEAD + "x: 1\n" * MANY + "graph: [relu]\n",
        HEAD + "<<: 1\n" * MANY + "graph: [relu]\n",
        HEAD + "".join(f"x{i}: 1\n" for i in range(MANY)) + "graph: [relu]\n",
        HEAD + f"graph: [{'rellu, ' * MANY}]\n",
        HEAD + f"graph: [{'!tag relu, ' * MANY}]\n",
        HEAD + f"blocks: {{{', '.join(f'b{i}: 3' for i in range(MANY))}}}\ngraph: [relu]\n",
        HEAD + f"graph: [conv2d: {{{', '.join(f'a{i}: 1' for i in range(MANY))}}}]\n",
        HEAD + f"blocks: {{b: {{body: relu, {', '.join(f'a{i}: 1' for i in range(MANY))}}}}}\n"
        "graph: [b]\n",
        HEAD + "blocks: {b: {body: relu}}\n"
        f"graph: [b: {{{', '.join(f'a{i}: 1' for i in range(MANY))}}}]\n",
        HEAD + f"graph: [relu]\nexpect: {{shapes: {{{', '.join(f'a{i}: [1]' for i in range(MANY))}}}}}\n",
        HEAD + f"blocks: {{b: {{order: [{', '.join(f'a{i}' for i in range(MANY))}], body: [relu]}}}}\n"
        "graph: [b]\n",
    ],
    ids=["imports", "keys", "merge", "unknown", "kinds", "tags", "blocks", "arguments",
         "keys of a block", "arguments of a block", "expect", "order"],
)  # fmt: skip
def test_mistakes_are_limited(text: str, tmp_path: Path) -> None:
    report = check(tmp_path, text)
    assert 0 < len(report.diagnostics) <= MAX_MISTAKES + 1
    assert len(str(report)) < 100_000


@pytest.mark.parametrize(
    ("nodes", "code"),
    [
        ("global_avg_pool2d, " + "batch_norm, " * 5000, "W402"),
        (", ".join(f"relu: {{name: a{i}, from: input}}" for i in range(5000)), "W405"),
    ],
    ids=["batch norms", "unused values"],
)
def test_warnings_are_limited(nodes: str, code: str) -> None:
    report = cnngraph.check(f"{HEAD}graph: [{nodes}]\n")
    assert report.ok
    assert [item.code for item in report.diagnostics] == [code] * (MAX_MISTAKES + 1)
    assert "more places" in report.diagnostics[-1].message


LONG = "n" * 1_000_000


@pytest.mark.parametrize(
    "text",
    [
        f"cnngraph: 1\nname: {LONG}\ninput: [3, 8, 8]\ngraph: [relu]\n",
        f"{HEAD}paper: {LONG}\ngraph: [relu]\n",
        f"{HEAD}graph: [{LONG}]\n",
        f"{HEAD}graph: [relu: {{name: {LONG}}}]\n",
        f"{HEAD}graph: [relu: {{from: {LONG}}}]\n",
        f"{HEAD}blocks: {{? {LONG} : {{body: relu}}}}\ngraph: [relu]\n",
        f"{HEAD}params: {{? {LONG} : 1}}\ngraph: [conv2d: {{out_channels: '${{x}}', kernel_size: 1}}]\n",
        f"cnngraph: 1\nname: net\ninputs: {{? {LONG} : [3, 8, 8]}}\ngraph: [relu]\n",
        f"{HEAD}outputs: {{? {LONG} : a}}\ngraph: [relu: {{name: a}}]\n",
        f"{HEAD}graph: [aux: {{name: {LONG}, body: relu}}, relu]\n",
        f"{HEAD}graph: [conv2d: {{? {LONG} : 1}}]\n",
        f"{HEAD}graph: [conv2d: {{out_channels: {LONG}, kernel_size: 1}}]\n",
        f"{HEAD}graph: [relu]\nexpect: {{shapes: {{? {LONG} : [1]}}}}\n",
    ],
    ids=["name", "paper", "kind", "name of a node", "from", "block", "param", "input", "output",
         "side head", "key", "value", "expect"],
)  # fmt: skip
def test_no_text_of_a_spec_is_printed_in_full(text: str) -> None:
    report = cnngraph.check(text)
    assert not report.ok
    assert len(str(report)) < 10_000
    assert len(json.dumps([item.to_dict() for item in report.diagnostics])) < 10_000


def test_the_list_of_blocks_of_a_library_is_limited(tmp_path: Path) -> None:
    blocks = "".join(f"  block_number_{i}: {{body: relu}}\n" for i in range(1000))
    text = str(check(tmp_path, LIBRARY + blocks))
    assert "1,000 blocks" in text
    assert text.endswith("block_number_49 and 950 more")


def test_the_values_of_all_files_are_limited_together(tmp_path: Path) -> None:
    values = ", ".join("relu" for _ in range(60_000))
    libraries = {f"m{i}": f"{LIBRARY}  b{i}: {{body: [{values}]}}\n" for i in range(2)}
    report = check(tmp_path, imports(["m0.yaml", "m1.yaml"]), **libraries)
    assert codes(report) == {"E004"}
    assert codes(check(tmp_path, imports(["m0.yaml"]))) == set()


def test_blocks_of_files_that_import_one_another_are_merged_once(tmp_path: Path) -> None:
    """However many ways lead to a file, its blocks are looked at once for each importer."""
    count = 30
    files = {
        f"m{i}": f"cnngraph: 1\nimports: [{', '.join(f'm{k}.yaml' for k in range(count - 1, i, -1))}]\n"
        f"blocks: {{{', '.join(f'b{i}_{j}: {{body: relu}}' for j in range(20))}}}\n"
        for i in range(count)
    }
    text = imports([f"m{i}.yaml" for i in reversed(range(count))])
    assert check(tmp_path, text, **files).ok
    profile = cProfile.Profile()
    profile.runcall(cnngraph.check, tmp_path / "net.yaml")
    assert pstats.Stats(profile).total_calls < 200_000  # pyright: ignore


def test_blocks_of_two_files_with_one_name_are_a_mistake(tmp_path: Path) -> None:
    libraries = {name: f"{LIBRARY}  b: {{body: relu}}\n  {name}: {{body: b}}\n" for name in "xy"}
    both = "cnngraph: 1\nimports: [x.yaml, y.yaml]\n"
    report = check(tmp_path, imports(["x.yaml", "y.yaml"]), **libraries)
    assert [item.code for item in report.diagnostics] == ["E114"]
    report = check(tmp_path, imports(["both.yaml", "x.yaml"]), both=both)
    assert [item.code for item in report.diagnostics] == ["E114"]
    report = check(tmp_path, imports(["x.yaml", "z.yaml"]), z="cnngraph: 1\nimports: [x.yaml]\n")
    assert report.ok, "the same block in two ways"


def test_very_many_inputs_are_tried_at_fewer_sizes() -> None:
    inputs = ", ".join(f"x{i}: [3, 8, 8]" for i in range(5000))
    report = cnngraph.check(f"cnngraph: 1\nname: net\ninputs: {{{inputs}}}\ngraph: [relu]\n")
    assert report.ok
    assert report.sizes is not None
    assert 5000 * report.sizes.range[1] <= MOST_EVALUATIONS


def test_the_garbage_collector_runs_again_after_checks_in_threads(tmp_path: Path) -> None:
    check(tmp_path, f"{HEAD}graph: [relu]\n")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(cnngraph.check, [tmp_path / "net.yaml", tmp_path / "missing.yaml"] * 50))
    assert gc.isenabled()
    gc.disable()
    try:
        cnngraph.check(tmp_path / "net.yaml")
        assert not gc.isenabled()
    finally:
        gc.enable()


@pytest.mark.parametrize("kind", ["fifo", "device", "folder", "link out", "link to itself"])
def test_only_regular_files_within_reach_are_read(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    path = folder / "lib.yaml"
    (tmp_path / "outside.yaml").write_text(f"{LIBRARY}  b: {{body: relu}}\n")
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        targets = {"device": "/dev/zero", "link out": "../../outside.yaml", "link to itself": path}
        path.symlink_to(targets[kind])
    for text, code in [
        (imports(["lib.yaml"]), "E111"),
        ("cnngraph: 1\nextends: lib.yaml\n", "E112"),
    ]:
        assert codes(check(folder, text)) == {code}
    if kind != "link out":  # a spec that the user names may be a link
        assert codes(cnngraph.check(path)) == {"E001"}


@pytest.mark.parametrize(
    "data",
    ["cnngraph: 1".encode("utf-16"), b"cnngraph: 1 # \xe9\n", b"\xff\xfe\x00", b"\x00" * 1000, b""],
)
def test_files_of_any_encoding_are_diagnostics(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "lib.yaml").write_bytes(data)
    assert codes(cnngraph.check(tmp_path / "lib.yaml")) <= {"E001", "E002"}
    report = check(tmp_path, imports(["lib.yaml"]))
    assert codes(report) <= {"E001", "E002", "E111"}
    assert not report.ok


def test_a_file_that_grows_is_read_up_to_the_limit(tmp_path: Path, monkeypatch) -> None:
    """The size is counted when the text is read, not when the file is opened."""
    path = tmp_path / "net.yaml"
    path.write_text("#" * (MAX_BYTES + 1))
    real = os.fstat
    small = os.stat_result([*real(0)[:6], 10, *real(0)[7:10]])

    def smaller(descriptor: int) -> os.stat_result:
        status = real(descriptor)
        return os.stat_result([status.st_mode, *small[1:]])

    monkeypatch.setattr(os, "fstat", smaller)
    assert codes(cnngraph.check(path)) == {"E004"}


def test_a_broken_import_is_read_and_reported_once(tmp_path: Path) -> None:
    names = ["lib.yaml", "./lib.yaml", *[f"./{'./' * i}lib.yaml" for i in range(50)]]
    (tmp_path / "lib.yaml").write_text("cnngraph: 1\nblocks: {a: {}, a: {}}\n")
    (tmp_path / "net.yaml").write_text(imports(names))
    read: list[Path] = []

    def reader(path: Path, name: str):
        read.append(path)
        return read_source(path, name)

    spec = load_spec(tmp_path / "net.yaml", read=reader)
    assert [path.name for path in read] == ["net.yaml", "lib.yaml"]
    assert len(spec.mistakes) == 1


@pytest.mark.parametrize("key", ["imports: [m{}.yaml]", "extends: m{}.yaml"])
def test_chains_of_files_are_limited(key: str, tmp_path: Path) -> None:
    for i in range(MAX_FILES + 50):
        (tmp_path / f"m{i}.yaml").write_text(f"cnngraph: 1\n{key.format(i + 1)}\n")
    head = HEAD if "imports" in key else "cnngraph: 1\n"
    report = check(tmp_path, f"{head}{key.format(0)}\n")
    assert "E110" in codes(report)


def test_the_files_of_a_spec_are_limited_together(tmp_path: Path) -> None:
    for i in range(3):
        (tmp_path / f"m{i}.yaml").write_text(f"{LIBRARY}  b{i}: {{body: relu}}\n#{'x' * 500_000}\n")
    assert codes(check(tmp_path, imports([f"m{i}.yaml" for i in range(3)]))) == {"E004"}


@pytest.mark.parametrize("name", ['"a\\0b.yaml"', '"a\\ud800b.yaml"', "a" * 300_000 + ".yaml"])
@pytest.mark.parametrize("key", ["imports: [{}]\ngraph: [relu]", "extends: {}"])
def test_names_that_no_file_can_have_are_diagnostics(name: str, key: str, tmp_path: Path) -> None:
    head = HEAD if "imports" in key else "cnngraph: 1\n"
    report = check(tmp_path, f"{head}{key.format(name)}\n")
    assert codes(report) & {"E002", "E111", "E112"}
    assert len(str(report)) < 10_000


@pytest.mark.parametrize(
    "name", ["a\0b.yaml", "a\ud800.yaml", "a" * 10_000, "a" * 10_000 + ".yaml"]
)
def test_a_path_that_no_file_can_have_is_a_diagnostic(name: str) -> None:
    assert codes(cnngraph.check(name)) == {"E001"}


@pytest.mark.parametrize(
    "expression",
    ["[1] * none", "none * [1]", "'a' * none", "none + 1", "max(none)", "none[0]", "len(none)",
     "sum(none)", "range(none)", "round(none)", "divisible(none, 8)", "none < 1", "1 in none"],
)  # fmt: skip
def test_expressions_over_none_are_diagnostics(expression: str, tmp_path: Path) -> None:
    value = json.dumps(f"${{{expression}}}")
    report = check(tmp_path, f"{HEAD}params: {{a: {value}}}\ngraph: [relu]\n")
    assert codes(report) == {"E105"}


@pytest.mark.parametrize("name", ["a/" * 100_000 + "b.yaml", "a" * 100_000 + ".yaml"])
def test_a_path_has_a_limited_length(name: str, tmp_path: Path) -> None:
    for text, code in [(imports([name]), "E111"), (f"cnngraph: 1\nextends: {name}\n", "E112")]:
        report = check(tmp_path, text)
        assert codes(report) == {code}
        assert "at most 4,096 characters" in str(report)
        assert len(str(report)) < 1000


def test_the_report_of_a_large_network_is_limited() -> None:
    heads = "".join(f"  - aux: {{name: h{i}, body: [relu]}}\n" for i in range(200))
    report = cnngraph.check(f"{HEAD}graph:\n{heads}" + "  - relu\n" * 2001)
    text = str(report)
    assert report.ok
    assert "and 150 more)" in text
    assert "1,701 more" in text
    assert len(text.splitlines()) < 600
