"""Imports the convolutional networks of timm and torchvision, and writes docs/importable.md.

    python -m tests.importer.table              # all of them, which takes hours
    python -m tests.importer.table timm:vgg11   # only these; the other lines of the table stay

Each network gets random weights and statistics, and has to compute the same after its import. timm
has variants of most networks in several sizes, and the smallest of each stands for them.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cnngraph import CnngraphError
from cnngraph.importer import Imported, from_module
from cnngraph.importer.named import import_torchvision, module_by_name

DOCS = Path(__file__).parents[2] / "docs" / "importable.md"
TRANSFORMERS = (
    "beit cait coat convit crossvit davit deepseek_vit deit efficientformer efficientformer_v2 "
    "efficientvim eva gcvit gemma4_vit hiera hieradet_sam2 iformer levit maxxvit mlp_mixer "
    "mobilenetv5 mvitv2 naflexvit nest pit pvt_v2 qwen3_vit sequencer swin_transformer "
    "swin_transformer_v2 swin_transformer_v2_cr tiny_vit tnt twins vision_transformer "
    "vision_transformer_hybrid vision_transformer_relpos vision_transformer_sam visformer "
    "vitamin volo xcit"
)
"""Modules of timm whose networks are mainly attention over positions, recurrent or MLPs."""
MOST_PARAMS = 50_000_000
MOST_SECONDS = 300
TOLERANCE = 1e-5
"""Of the largest value of the result."""
LEAVES = "`--allow-code` leaves"
PREFACE = """\
# Networks that can be imported

These convolutional networks of torchvision 0.28 and timm 1.0.31 were imported with random weights
and statistics. `yes`: the spec compiles to a network with the same keys that computes the same,
within 1e-5 of the largest value. The table has all of torchvision's classification networks without
attention. timm has most networks in several sizes, and the smallest of each stands for them. The
others come with the reason; `--allow-code` imports some of them, and leaves the classes that are
named there.

A command tries networks, and writes their lines of this page; without names, it tries all of both
packages except transformers, and those of timm with more than 50 million parameters, for hours:

```text
python -m tests.importer.table timm:vgg11 torchvision:resnet18
```
"""


def representatives() -> Iterator[str]:
    """The networks to try: all of torchvision, and the smallest of each variant of timm."""
    torchvision = import_torchvision()
    models = torchvision.models
    for name in models.list_models(models):
        if not name.startswith(("vit_", "swin", "maxvit")):
            yield f"torchvision:{name}"
    import timm

    for module in timm.list_modules():
        smallest: dict[str, tuple[int, str]] = {}
        for name in timm.list_models(module=module) if module not in TRANSFORMERS.split() else []:
            if not name.startswith("test_"):
                with torch.device("meta"):
                    params = sum(p.numel() for p in timm.create_model(name).parameters())
                variant, size = variant_of(name), (params, name)
                smallest[variant] = min(size, smallest.get(variant, size))
        for params, name in smallest.values():
            if params <= MOST_PARAMS:
                yield f"timm:{name}"


def variant_of(name: str) -> str:
    """The name of a network without what states its size."""
    sizes = "atto|femto|pico|nano|zepto|x*_?(tiny|small|base|large|huge)|x*[smlb]"
    return re.sub(r"\d+", "", re.sub(rf"_({sizes})(?=_|$)", "", name))


def with_statistics(module: nn.Module) -> nn.Module:
    """The module in evaluation, with batch norms that do something there."""
    torch.manual_seed(0)
    for each in module.modules():
        mean, var = getattr(each, "running_mean", None), getattr(each, "running_var", None)
        if isinstance(mean, Tensor) and isinstance(var, Tensor):
            nn.init.uniform_(mean, -0.5, 0.5)
            nn.init.uniform_(var, 0.5, 2)
    return module.eval()


def result(source: str) -> str:
    """`yes`, or why a network is not imported, and the classes that `--allow-code` leaves."""
    module, name, shape = module_by_name(source)
    with_statistics(module)
    try:
        return compared(module, from_module(module, shape, name=name), shape)
    except CnngraphError as error:
        said = reason(str(error))
    try:
        imported = from_module(module, shape, name=name, allow_code=True)
    except CnngraphError:
        return said
    classes = ", ".join(name.rpartition(".")[2] for name in imported.kept)
    return f"{said} ({LEAVES} {classes}: {compared(module, imported, shape)})"


def compared(module: nn.Module, imported: Imported, shape: tuple[int, ...]) -> str:
    """`yes` if the imported network computes what the module does, or the difference."""
    network = imported.compile(backend="eager").eval()
    x = torch.randn(1, *shape)
    with torch.no_grad():
        expected: Any = module(x)
        found = network(x)
    difference = (found - expected).abs().max() / expected.abs().max()
    return "yes" if difference <= TOLERANCE else f"wrong by {difference:.0e}"


def reason(message: str) -> str:
    """An error's message, with the place in the source below the packages' folder."""
    line = message.splitlines()[0].replace("the language has no word for ", "no word for ")
    line = re.sub(r"[^ ]*site-packages/", "", line).replace("|", "/")
    return line if len(line) <= 160 else f"{line[:157]}..."


def limited(source: str) -> str:
    """`result` in a process of its own, which is ended if it takes too long."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(MOST_SECONDS)
        try:
            text = result(source)
        except Exception as error:
            text = f"{type(error).__name__}: {reason(str(error))}"
        os.write(writer, json.dumps(text).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return json.loads(text) if text else f"takes more than {MOST_SECONDS} seconds"


def rows() -> dict[str, str]:
    """The lines of the table: network -> result."""
    text = DOCS.read_text() if DOCS.exists() else ""
    return dict(re.findall(r"^\| `([^`]+)` \| (.+) \|$", text, re.MULTILINE))


def page(found: dict[str, str]) -> str:
    """The page with these results."""
    parts = [PREFACE]
    for package in ("torchvision", "timm"):
        own = {name: text for name, text in found.items() if name.startswith(f"{package}:")}
        if own:
            count = sum(text == "yes" for text in own.values())
            lines = [f"| `{name}` | {text} |" for name, text in sorted(own.items())]
            table = "\n".join(["| network | imported |", "|---|---|", *lines])
            left = sum(LEAVES in text and text.endswith(": yes)") for text in own.values())
            more = f", and {left} with `--allow-code`" if left else ""
            parts.append(f"## {package}: {count} of {len(own)}{more}\n\n{table}\n")
    return "\n".join(parts)


def main() -> None:
    warnings.simplefilter("ignore")
    found = rows()
    for source in sys.argv[1:] or representatives():
        found[source] = limited(source)
        print(f"{source}: {found[source]}", flush=True)
        DOCS.write_text(page(found))


if __name__ == "__main__":
    main()
