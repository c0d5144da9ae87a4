"""What the benchmark's sections share: the work, the clock, the memory, and their wording."""

from __future__ import annotations

import gc
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unetcam import UNetCAM

Times = dict[str, list[float]]


@dataclass(frozen=True)
class Setting:
    """How the whole benchmark is run.

    Attributes
    ----------
    device : str
        "cpu" or "cuda".
    repeats : int
        Rounds of the main comparison; sections with longer work take fewer.
    quick : bool
        Tiny work: whether everything runs, not how fast.
    say : callable
        Is told what is being measured.
    """

    device: str = "cpu"
    repeats: int = 5
    quick: bool = False
    say: Callable[[str], None] = field(default=lambda text: None)

    def rounds(self, most: int) -> int:
        """The rounds of a section that takes no more than `most`."""
        return min(self.repeats, most)


@dataclass(frozen=True)
class Task:
    """The size of a piece of work, as plain values that travel to another process."""

    classes: int = 21
    batch: int = 4
    side: int = 256
    layers: int = 5
    dims: int = 2
    decoder_width: int = 16
    device: str = "cpu"
    encoder: str = "resnet34"

    @classmethod
    def tiny(cls, classes: int = 2) -> Task:
        """Work for a trial run."""
        return cls(classes=classes, batch=1, side=32, encoder="resnet18")

    def sentence(self) -> str:
        """The work in words."""
        network = f"smp Unet {self.encoder}" if self.dims == 2 else "a small 3-D U-Net"
        size = "x".join([str(self.side)] * self.dims)
        return (
            f"{network} (no pretrained weights), {self.classes} classes x {self.layers} decoder "
            f"layers, batch {self.batch}, {size}"
        )


class UNet3d(nn.Module):
    """A 3-D U-Net of three downsamplings: two convolutions per stage, nearest upsampling."""

    def __init__(self, classes: int, width: int = 8) -> None:
        super().__init__()
        widths = [width, 2 * width, 4 * width, 8 * width]
        inputs = [1, *widths[:-1]]
        self.down = nn.ModuleList(_double(i, o) for i, o in zip(inputs, widths, strict=True))
        self.up = nn.ModuleList(
            _double(deep + skip, skip)
            for deep, skip in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        self.head = nn.Conv3d(width, classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, 1, D, H, W) to logits (B, classes, D, H, W)."""
        skips, features = [], images
        for number, stage in enumerate(self.down):
            features = stage(features if number == 0 else F.max_pool3d(features, 2))
            skips.append(features)
        for stage, skip in zip(self.up, skips[-2::-1], strict=True):
            larger = F.interpolate(features, scale_factor=2.0, mode="nearest")
            features = stage(torch.cat([larger, skip], dim=1))
        logits: Tensor = self.head(features)
        return logits


def _double(inputs: int, outputs: int) -> nn.Sequential:
    rows: list[nn.Module] = []
    for channels in (inputs, outputs):
        rows += [nn.Conv3d(channels, outputs, 3, padding=1, bias=False)]
        rows += [nn.BatchNorm3d(outputs), nn.ReLU(inplace=True)]
    return nn.Sequential(*rows)


@dataclass(frozen=True, eq=False)
class Work:
    """A network, images, and the decoder layers that are explained, deepest first."""

    task: Task
    model: nn.Module
    images: Tensor
    layers: tuple[str, ...]

    @classmethod
    def make(cls, task: Task) -> Work:
        """The same network and images for the same task, in any process."""
        torch.manual_seed(0)
        if task.dims == 2:
            import segmentation_models_pytorch as smp

            model: nn.Module = smp.Unet(
                task.encoder,
                encoder_weights=None,
                classes=task.classes,
                decoder_channels=(256, 128, 64, 32, task.decoder_width),
            )
        else:
            model = UNet3d(task.classes)
        spread_statistics(model)
        model = model.eval().to(task.device)
        images = torch.randn(task.batch, 3 if task.dims == 2 else 1, *[task.side] * task.dims)
        images = images.to(task.device)
        found = UNetCAM(model, example=images[:1]).layers
        if len(found) < task.layers:
            raise RuntimeError(f"{task.layers} layers are asked for, and there are {found}.")
        return cls(task, model, images, found[-task.layers :])


def spread_statistics(model: nn.Module) -> None:
    """Batch statistics as a trained network has them, so that folding them in is no identity."""
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.BatchNorm3d)):
            for values, low, high in (
                (module.running_mean, -0.2, 0.2),
                (module.running_var, 0.5, 1.5),
            ):
                if values is not None:
                    values.uniform_(low, high)


def alternate(
    contenders: Mapping[str, Callable[[], Any]],
    rounds: int,
    device: str,
    *,
    warm_up: Mapping[str, Callable[[], Any]] | None = None,
) -> Times:
    """Seconds of each contender by round: A B C A B C ..., after a warm-up that isn't counted."""
    for name, function in contenders.items():
        (warm_up or {}).get(name, function)()
    times: Times = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, function in contenders.items():
            gc.collect()
            _wait(device)
            start = time.perf_counter()
            kept = function()
            _wait(device)
            times[name].append(time.perf_counter() - start)
            del kept
    return times


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def timed(function: Callable[[], Any], device: str, rounds: int) -> float:
    """Median seconds of one function, after one call that isn't counted."""
    return statistics.median(alternate({"it": function}, rounds, device)["it"])


def ratio(times: Times, above: str, below: str, scale: float = 1.0) -> float:
    """The median over the rounds of how many times `above` took the time of `below`."""
    pairs = zip(times[above], times[below], strict=True)
    return statistics.median(scale * a / b for a, b in pairs)


# -- memory ----------------------------------------------------------------------------------


def peak_memory(contender: str, task: Task, classes: int) -> int | None:
    """Bytes by which a contender's memory grows at its peak, in a process of its own.

    On a GPU: what torch allocated beyond the network and the images. None where the system does
    not tell.
    """
    asked = json.dumps({"contender": contender, "task": task.__dict__, "classes": classes})
    script = Path(__file__).with_name("benchmark_peers.py")
    done = subprocess.run(
        [sys.executable, str(script), asked],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
    )
    if done.returncode:
        raise RuntimeError(f"Measuring the memory of '{contender}' failed:\n{done.stderr}")
    found: int | None = json.loads(done.stdout.splitlines()[-1])["bytes"]
    return found


def memory_growth(function: Callable[[], Any], device: str) -> int | None:
    """Bytes by which this process grows at its peak while `function` runs."""
    gc.collect()
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        kept = function()
        torch.cuda.synchronize()
        del kept
        return torch.cuda.max_memory_allocated() - before
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not reset.exists():
        return None
    reset.write_text("5")  # forget the peak so far
    before = _kilobytes(status, "VmRSS")
    kept = function()
    after = _kilobytes(status, "VmHWM")
    del kept
    return 1024 * max(0, after - before)


def _kilobytes(status: Path, name: str) -> int:
    line = next(x for x in status.read_text().splitlines() if x.startswith(f"{name}:"))
    return int(line.split()[1])


# -- wording ---------------------------------------------------------------------------------


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; all columns but the first are aligned to the right."""
    align = [":--", *["--:"] * (len(header) - 1)]
    lines = [header, align, *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def seconds(value: float) -> str:
    """Seconds with three significant digits, in milliseconds where they are few."""
    if value < 0.1:
        return f"{1000 * value:.3g} ms"
    return f"{value:.0f} s" if value >= 100 else f"{value:.3g} s"


def spread(values: Sequence[float], scale: float = 1.0) -> str:
    """The lowest and highest of the rounds."""
    return f"{seconds(scale * min(values))} to {seconds(scale * max(values))}"


def times_as(value: float) -> str:
    """A ratio."""
    return f"{value:.0f}x" if value >= 100 else f"{value:.3g}x"


def megabytes(value: int | None) -> str:
    """Bytes as MiB."""
    return "not measured" if value is None else f"{value / 2**20:,.0f} MiB"


def goal(value: float, limit: float, *, most: bool) -> str:
    """Whether a goal is met."""
    met = value <= limit if most else value >= limit
    sign = "at most" if most else "at least"
    return f"{sign} {limit:g}: {'met' if met else 'missed'}"
