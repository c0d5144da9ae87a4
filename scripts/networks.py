#!/usr/bin/env python
"""Trace every network of the tests' zoo, and write the page that shows its layers.

    python scripts/networks.py                     # docs/networks.md
    python scripts/networks.py --only "MONAI UNet, 2-D" --out trial.md

The networks' libraries come with `pip install unetcam[test]`; nothing is downloaded.
"""

from __future__ import annotations

import importlib.metadata
import itertools
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch
import typer

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.models.zoo import ZOO  # noqa: E402
from unetcam import find_layers  # noqa: E402
from unetcam.models.layers import LayerTable  # noqa: E402

PACKAGES = (
    "torch",
    "torchvision",
    "segmentation-models-pytorch",
    "monai",
    "dynamic_network_architectures",
    "transformers",
)
LIBRARIES = {
    "smp": "segmentation-models-pytorch",
    "MONAI": "MONAI",
    "nnU-Net": "nnU-Net v2 (dynamic-network-architectures)",
    "torchvision": "torchvision",
    "transformers": "transformers",
}
BY_HAND = "Written by hand"

INTRODUCTION = """\
# Networks

What `UNetCAM(model)` explains when no layer is named, on {count} networks. Nothing is looked up by
name: the network runs once on an image, and the layers are read off what happened. The tests
check, for each of these networks, that the layers are those below and that the maps equal those of
plain autograd in float64.

```python
from unetcam import find_layers

table = find_layers(model, images)  # name, stage, stride, channels, size, skips, parts
print(table)  # as a table
print(table.drawn())  # as below
```

## How to read the drawings

One line for each stride, input pixels per pixel, with each layer's channels. On the left the
encoder goes down; on the right the decoder comes up: **the right side is what is explained**,
deepest first. An arrow `───▶` is a skip. It bears a name, `─ model.1.attention ──▶`, where it comes
of a module that is no layer on the left; `+2` says that two more enter beside it. `═▶` leads to the
head, which makes the logits.

## What a layer's name can be

| name | what is explained |
|---|---|
| `"up3"` | what the module gives, as in `model.named_modules()` |
| `model.up3` | the same |
| `"up3:skip"` | the tensor that enters the stage by its skip |
| `"up3:path"` | the tensor that comes by the upsampling path |
| `"conv#2"` | the second run of a module that runs several times in a forward |
| `"conv#2:skip"` | both together |

- **Parts** of a stage are taken as they enter the operation that joins them, a concatenation or a
  sum. Several skips are `"up3:skip1"`, `"up3:skip2"` and so on; the table lists them as `parts`.
- **Tokens**, (B, N, K) or (B, H, W, K), are explained as the map (B, K, *spatial) that they came
  of. The trace follows each pixel through every rearrangement; class tokens and registers are left
  out. Tokens that are out of order, as inside a shifted window, are refused.
- **Wrapped models**: of `DataParallel`, `DistributedDataParallel` and `torch.compile` the model
  inside is explained, under its own names; names as the wrapper has them (`"module.up3"`,
  `"_orig_mod.up3"`) are understood. Compiled parts of a model run as they were written while they
  are explained. In a LightningModule the names begin with the attribute's, as `"model.up3"`.
- **Several inputs**: `cam((image, other))` calls `model(image, other)`, and
  `cam({{"image": image, "age": age}})` calls `model(image=image, age=age)`. The tensor with the
  most pixels is the image. `find_layers` takes the same.
- **Several outputs**: of a tuple, list, dict or output object the largest map is taken, but never
  one that another is made from by weights (features, hidden states, a coarse map that is refined).
  Where several are as large, it is the one that the most upsampling leads to, and among those the
  first; where their channels differ, a warning says so. `output=` picks another.
- **Probabilities**: a softmax, log-softmax or sigmoid at the end is seen by the trace, and what
  enters it is explained; behind further arithmetic (a mean of two, a mask, an enlargement)
  probabilities are known by their values, and their logarithms or log-odds are explained.
  `LoadedModel.output_kind` and `.output_sentence` say so. Several channels that end in sigmoids
  are read each on its own, with a warning.
- **Other forms**: logits with their channels last, as tokens (B, N, K), or of one class without
  an axis for it. Class indices are refused. What is done to logits afterwards (temperature, prior,
  mask, gates and scores from elsewhere, a residual, a second head) does not hide the decoder.
- **A batch of one size**: a network that fails on one image is traced on the batch that was given.
- **Classifiers**: scores (B, C) are a map of one pixel, and what is explained is the last feature
  map before they are pooled.
"""

CAVEATS = """\
## Where a person may want to choose

- A module that processes the encoder's deepest map, as `encoder10` of SwinUNETR, `decoder.center`
  of MAnet or the pyramid of FPN and UPerNet, runs behind the encoder and counts as the decoder's.
- A module or activation that serves several stages is named by its runs, as `act#4`.
- MONAI's UNet joins a skip *behind* a stage's last module and upsamples in its head, so the
  explained layer is what is joined, and not the concatenation: `:skip` and `:path` are its parts.
- Where a function makes a stage's last map, the first module that takes it on at its size is
  explained, as `fpn_convs` of UPerNet; where there is none, as behind the upsampling of LR-ASPP,
  the stage has no layer.
- U-Nets within a U-Net's stages (U²-Net) are steps of the outer one; of U-Nets one behind the
  other the last is explained. Any layer can be named instead.
"""


def main(
    out: Annotated[Path, typer.Option(help="The page to write.")] = ROOT / "docs" / "networks.md",
    only: Annotated[list[str] | None, typer.Option(help="A network's name; repeatable.")] = None,
) -> None:
    """Write the page."""
    warnings.simplefilter("ignore")
    names = list(only or ZOO)
    out.write_text(page(names), encoding="utf-8")
    typer.echo(f"{out}: {len(names)} networks")


def page(names: Sequence[str]) -> str:
    """The page of these networks, in Markdown."""
    parts = [INTRODUCTION.format(count=len(names))]
    for library, listed in itertools.groupby(names, key=library_of):
        parts.append(f"## {library}\n")
        parts += sections(list(listed))
    return "\n".join([*parts, CAVEATS, versions()])


def library_of(name: str) -> str:
    """The library that a network of the zoo is of."""
    return LIBRARIES.get(name.partition(" ")[0], BY_HAND)


def sections(names: Sequence[str]) -> list[str]:
    """One section a network; networks of one drawing, as in 2-D and 3-D, share one."""
    by_drawing: dict[tuple[str, str], list[str]] = {}
    for name in names:
        kind = name.removesuffix(", 2-D").removesuffix(", 3-D")
        by_drawing.setdefault((kind, traced(name).drawn()), []).append(name)
    return [
        f"### {kind}{dimensions(sharing)}\n\n```text\n{drawing}\n```\n"
        for (kind, drawing), sharing in by_drawing.items()
    ]


def dimensions(names: Sequence[str]) -> str:
    """In how many dimensions networks of one kind were traced, where they say so."""
    said = [name[-3:] for name in names if name.endswith(("2-D", "3-D"))]
    return f", {' and '.join(said)}" if said else ""


def traced(name: str) -> LayerTable:
    """The layers of a network of the zoo."""
    torch.manual_seed(0)
    entry = ZOO[name]
    return find_layers(entry.build().eval(), torch.rand(1, *entry.image))


def versions() -> str:
    """What the page was made with."""
    listed = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    return f"---\n\nMade by `python scripts/networks.py` with {listed}.\n"


if __name__ == "__main__":
    typer.run(main)
