#!/usr/bin/env python
"""Hold every method that a peer shares with unetcam against the peer, and write the page.

    python scripts/parity.py                   # docs/parity.md, in a minute or two
    python scripts/parity.py --out page.md

The peers come with `pip install unetcam[bench,perturb]`.
"""

from __future__ import annotations

import importlib.metadata
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from benchmark_timing import table
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

PACKAGES = ("unetcam", "torch", "grad-cam", "torchcam", "captum", "segmentation-models-pytorch")

INTRODUCTION = """\
# Parity with other tools

Made by `python scripts/parity.py` in {seconds:.0f} seconds, with {versions}.
The same comparisons are tests: `tests/methods/test_parity.py`.

Two images at a time are explained for two targets, a class over the whole image and another over a
region. "U-Net" is written by hand, "functional" with functions for its resampling; both have a 1x1
head, as smp.FPN has and smp.Unet has not. Networks and images are in double precision where nothing
else is said, so that a difference is one of definition and not of rounding. pytorch-grad-cam gives
no raw maps: ours are scaled as it scales, and maps in [0, 1] are compared. Raw maps are compared in
shares of a layer's largest value.

## Where both mean the same
"""

DEPARTURES = """
## Where we differ on purpose
"""

REST = """
## What has no counterpart

- **random** has the weights of pytorch-grad-cam's RandomCAM, drawn from a seed and not from NumPy's
  global state, and of one sign for an image.
- **smooth-gradcam++** averages the maps of noisy images. torchcam's SmoothGradCAMpp, as its paper,
  averages the derivatives inside Grad-CAM++'s quotient instead, which no other method has.
- **seg-xres-cam**, **rise**, **channels**, **attention**, **edges** and **mask-prior** are in none
  of the three. They are tested against plain loops and by hand.
"""


def measured(progress: Progress, found: Sequence[Any], title: str) -> list[tuple[Any, str, float]]:
    """Each comparison with the networks that it was made on and its largest difference."""
    task = progress.add_task(title, total=len(found))
    rows = []
    for one in found:
        progress.update(task, description=f"{title}: {one.method}, {one.peer}")
        differences = list(one.differences())
        networks = ", ".join(dict.fromkeys(name for name, _, _ in differences))
        rows.append((one, networks, max(value for _, _, value in differences)))
        progress.advance(task)
    progress.update(task, description=title)
    return rows


def page(same: Sequence[Any], apart: Sequence[Any], seconds: float) -> str:
    """The page in Markdown."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    agreeing = table(
        ("method", "peer", "networks", "compared", "largest difference", "allowed"),
        [
            (f"`{one.method}`", one.peer, on, one.how, f"{value:.1e}", f"{one.tolerance:.0e}")
            for one, on, value in same
        ],
    )
    departing = table(
        ("method", "peer", "networks", "compared", "largest difference"),
        [(f"`{one.method}`", one.peer, on, one.how, f"{value:.1e}") for one, on, value in apart],
    )
    reasons = "\n".join(f"- **{one.method}, {one.peer}.** {one.why}" for one, _, _ in apart)
    parts = [
        INTRODUCTION.format(seconds=seconds, versions=versions),
        agreeing,
        DEPARTURES,
        departing,
        "",
        reasons,
        REST,
    ]
    return "\n".join(parts)


def main(
    out: Annotated[Path, typer.Option(metavar="FILE", help="The page that is written.")] = ROOT
    / "docs"
    / "parity.md",
) -> None:
    """Write the page; exit with 1 where a method is further from a peer than it may be."""
    warnings.simplefilter("ignore")
    start = time.perf_counter()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        from tests.methods.comparisons import comparisons, departures

        same = measured(progress, comparisons(), "agreeing")
        apart = measured(progress, departures(), "differing on purpose")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page(same, apart, time.perf_counter() - start), encoding="utf-8")
    print(out)
    far = [one for one, _, value in same if not value <= one.tolerance]
    for one in far:
        print(f"{one.method} is further from {one.peer} than it may be.", file=sys.stderr)
    raise typer.Exit(1 if far else 0)


if __name__ == "__main__":
    typer.run(main)
