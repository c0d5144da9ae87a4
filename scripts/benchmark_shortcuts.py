#!/usr/bin/env python
"""What each shortcut of the engine saves on three networks, with one thread and with two.

    OMP_NUM_THREADS=2 python scripts/benchmark_shortcuts.py --out shortcuts.json
    python scripts/benchmark_shortcuts.py --quick            # does everything run?

A shortcut that saves less than 5 % on all of them does not pay. Each is switched off alone, in
rounds that take turns with all of them on; what is shown is the median over the rounds of the
share of the time that it saves. The maps are checked to be equal each time.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, get_args

import torch
import typer
from benchmark_engine import NothingToSwitchOffError, check_same, without
from benchmark_peers import unetcam, unetcam_plain
from benchmark_timing import Task, UNet3d, Work, alternate, ratio, spread_statistics, table
from torch import Tensor, nn

from unetcam import UNetCAM
from unetcam.engine.request import Shortcut


class TransposedUNet(nn.Module):
    """A U-Net of three downsamplings whose upsampling is learned: transposed convolutions."""

    def __init__(self, classes: int, width: int = 24) -> None:
        super().__init__()
        widths = [width, 2 * width, 4 * width, 8 * width]
        self.down = nn.ModuleList(
            _double(inputs, outputs)
            for inputs, outputs in zip([3, *widths[:-1]], widths, strict=True)
        )
        pairs = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.up = nn.ModuleList(nn.ConvTranspose2d(deep, skip, 2, 2) for deep, skip in pairs)
        self.mix = nn.ModuleList(_double(2 * skip, skip) for _, skip in pairs)
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, 3, H, W) to logits (B, classes, H, W)."""
        skips, features = [], images
        for number, stage in enumerate(self.down):
            features = stage(self.pool(features) if number else features)
            skips.append(features)
        for up, mix, skip in zip(self.up, self.mix, skips[-2::-1], strict=True):
            features = mix(torch.cat([skip, up(features)], dim=1))
        logits: Tensor = self.head(features)
        return logits


def _double(inputs: int, outputs: int) -> nn.Sequential:
    rows: list[nn.Module] = []
    for channels in (inputs, outputs):
        rows += [nn.Conv2d(channels, outputs, 3, padding=1, bias=False)]
        rows += [nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
    return nn.Sequential(*rows)


def _work(model: nn.Module, task: Task, channels: int) -> Work:
    spread_statistics(model)
    model = model.eval()
    images = torch.randn(task.batch, channels, *[task.side] * task.dims)
    return Work(task, model, images, UNetCAM(model, example=images[:1]).layers)


def _works(*, quick: bool) -> dict[str, Work]:
    """The networks, each with images, every decoder layer and some classes."""
    torch.manual_seed(0)
    flat, deep = (160, 16) if quick else (256, 48)
    encoder = "resnet18" if quick else "resnet34"
    smp = Work.make(Task(classes=4, batch=2, side=flat, encoder=encoder))
    transposed = _work(TransposedUNet(4), Task(classes=4, batch=2, side=flat), 3)
    volumes = _work(UNet3d(4), Task(classes=4, batch=1, side=deep, dims=3), 1)
    return {"smp.Unet": smp, "transposed convolutions": transposed, "3-D": volumes}


def _saved(work: Work, rounds: int) -> tuple[float, dict[str, float | None]]:
    """Seconds with all shortcuts, and what share each saves; None where it has no use."""
    classes = range(work.task.classes)
    everything = partial(unetcam, work, classes)
    expected = everything()
    contenders: dict[str, Callable[[], Any]] = {"all": everything}
    unused = set()
    for name in get_args(Shortcut):
        off = partial(without, name, work, classes)
        try:
            check_same(expected, off(), name)
        except NothingToSwitchOffError:
            unused.add(name)
        else:
            contenders[name] = off
    contenders["all of them"] = partial(unetcam_plain, work, classes)
    times = alternate(contenders, rounds, "cpu")
    saved: dict[str, float | None] = dict.fromkeys(unused)
    saved |= {name: 1 - ratio(times, "all", name) for name in times if name != "all"}
    return statistics.median(times["all"]), saved


def _shown(results: Mapping[str, Mapping[str, Any]]) -> str:
    columns = list(results)
    rows = [
        [name, *(_percent(results[column]["saved"][name]) for column in columns)]
        for name in (*get_args(Shortcut), "all of them")
    ]
    seconds = ["seconds with all", *(f"{results[column]['seconds']:.3g}" for column in columns)]
    return table(["shortcut", *columns], [*rows, seconds])


def _percent(share: float | None) -> str:
    return "no use" if share is None else f"{100 * share:.0f} %"


def main(
    rounds: Annotated[int, typer.Option(min=1, help="Rounds that take turns.")] = 5,
    threads: Annotated[list[int] | None, typer.Option(help="Threads; may be repeated.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Tiny work: no real figures.")] = False,
    out: Annotated[Path | None, typer.Option(help="A JSON file for the figures.")] = None,
) -> None:
    """Measure what each shortcut saves, and print it as a table."""
    results: dict[str, dict[str, Any]] = {}
    for count in threads or (1, 2):
        torch.set_num_threads(count)
        for name, work in _works(quick=quick).items():
            typer.echo(f"{name}, {count} threads", err=True)
            seconds, saved = _saved(work, rounds)
            label = f"{name}, {count} thread{'s' * (count > 1)}"
            results[label] = {"seconds": seconds, "saved": saved}
    if out is not None:
        out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    typer.echo(_shown(results))


if __name__ == "__main__":
    typer.run(main)
