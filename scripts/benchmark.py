#!/usr/bin/env python
"""Measure unetcam beside its peers, and write the page that shows it.

    python scripts/benchmark.py                    # docs/benchmarks.md, on the CPU
    python scripts/benchmark.py --device cuda      # docs/benchmarks-cuda.md, and the GPU column
    python scripts/benchmark.py --quick --out trial --only main

The peers come with `pip install unetcam[bench]`.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from datetime import date
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from benchmark_compare import (
    measure_main,
    measure_scaling,
    measure_targets,
    show_main,
    show_scaling,
    show_targets,
)
from benchmark_demo import measure_demo, show_demo
from benchmark_engine import measure_field, measure_shortcuts, show_field, show_shortcuts
from benchmark_timing import Setting, table
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = (
    "unetcam",
    "torch",
    "torchcam",
    "captum",
    "grad-cam",
    "segmentation-models-pytorch",
    "numpy",
)


class Section(str, Enum):
    """A part of the page."""

    MAIN = "main"
    TARGETS = "targets"
    SCALING = "scaling"
    SHORTCUTS = "shortcuts"
    FIELD = "field"
    DEMO = "demo"


TITLES = {
    Section.MAIN: "Every class and every decoder layer",
    Section.TARGETS: "One target, and each further one",
    Section.SCALING: "How it scales",
    Section.SHORTCUTS: "What each shortcut was expected to bring, and brought",
    Section.FIELD: "The region field",
    Section.DEMO: "A whole report",
}
MEASURE: dict[Section, Callable[[Setting], dict[str, Any]]] = {
    Section.MAIN: measure_main,
    Section.TARGETS: measure_targets,
    Section.SCALING: measure_scaling,
    Section.SHORTCUTS: measure_shortcuts,
    Section.FIELD: measure_field,
    Section.DEMO: measure_demo,
}
SHOW: dict[Section, Callable[[Mapping[str, Any], Path], str]] = {
    Section.TARGETS: show_targets,
    Section.SCALING: show_scaling,
    Section.SHORTCUTS: show_shortcuts,
    Section.FIELD: show_field,
    Section.DEMO: show_demo,
}


class Device(str, Enum):
    """Where everything runs."""

    CPU = "cpu"
    CUDA = "cuda"


def machine(device: str) -> dict[str, str]:
    """The hardware and the versions, by name."""
    found = {
        "date": date.today().isoformat(),
        "CPU": _cpu_model(),
        "cores": f"{_cores()} usable, {torch.get_num_threads()} threads used by torch",
        "memory": _memory(),
        "GPU": torch.cuda.get_device_name() if device == "cuda" else "not measured",
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
    }
    return found | {name: importlib.metadata.version(name) for name in PACKAGES}


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        fields = dict(
            [part.strip() for part in line.split(":", 1)]
            for line in info.read_text().splitlines()
            if ":" in line
        )
        if "model name" in fields:
            numbers = (fields.get("cpu family"), fields.get("model"))
            return f"{fields['model name']} (family {numbers[0]}, model {numbers[1]})"
    if shutil.which("sysctl"):
        asked = ["sysctl", "-n", "machdep.cpu.brand_string"]
        told = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
        if told:
            return told
    return platform.processor() or platform.machine()


def _cores() -> int:
    known = getattr(os, "sched_getaffinity", None)
    return len(known(0)) if known is not None else (os.cpu_count() or 1)


def _memory() -> str:
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return "not told by the system"
    return f"{total / 2**30:.0f} GiB"


def compose(results: Mapping[str, Any], out: Path, images: Path) -> str:
    """The page."""
    setting, sections = results["setting"], results["sections"]
    gpu = _other_device(out) if setting["device"] == "cpu" else None
    facts = dict(results["machine"])
    if gpu is not None:
        facts["GPU"] = f"{gpu['machine']['GPU']} (of another run, {gpu['machine']['date']})"
    command = "python scripts/benchmark.py"
    command += "".join(f" {flag}" for flag in results["flags"])
    parts = [
        "# Benchmarks",
        f"Made by `{command}` in {results['minutes']:.0f} minutes; every single timing is in "
        f"[{_json_name(setting['device'])}]({_json_name(setting['device'])}). Contenders run in "
        "turn (A B C A B C ...) in one process, after a warm-up that isn't counted; times are "
        "medians over the rounds, ratios are medians of each round's ratio.",
    ]
    if setting["quick"]:
        parts.append("**A trial run on tiny work: its figures say nothing about speed.**")
    left = [one.value for one in Section if one.value not in sections]
    if left:
        parts.append(f"Sections that this run left out: {', '.join(left)}.")
    parts.append(table(["machine", ""], list(facts.items())))
    for section in Section:
        if section.value not in sections:
            continue
        found = sections[section.value]
        if section is Section.MAIN:
            shown = show_main(found, images, gpu and gpu["sections"].get("main"))
        else:
            shown = SHOW[section](found, images)
        parts += [f"## {TITLES[section]}", shown]
    return "\n\n".join(parts) + "\n"


def _json_name(device: str) -> str:
    return f"benchmarks-{device}.json"


def _other_device(out: Path) -> Any:
    path = out / _json_name("cuda")
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def main(
    device: Annotated[
        Device, typer.Option(help="Where everything runs. The page names the hardware.")
    ] = Device.CPU,
    repeats: Annotated[
        int,
        typer.Option(
            min=1, help="Rounds of the comparisons; the long sections take at most 3, some 2."
        ),
    ] = 3,
    only: Annotated[
        list[Section] | None,
        typer.Option(help="Measure this section alone; may be given several times."),
    ] = None,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="Tiny work, 2 rounds: does everything run? No real figures."),
    ] = False,
    out: Annotated[
        Path,
        typer.Option(help="Folder for benchmarks.md, its .json and images/benchmarks/*.png."),
    ] = ROOT / "docs",
) -> None:
    """Measure unetcam beside torchcam, captum and pytorch-grad-cam, and write the page.

    The default run takes about 12 minutes on two cores; keep the machine quiet meanwhile. On a
    GPU the page is benchmarks-cuda.md, and a later run on the CPU takes its column from there.
    """
    if device is Device.CUDA and not torch.cuda.is_available():
        raise typer.BadParameter("torch finds no CUDA device here.", param_hint="--device")
    sections = [section for section in Section if not only or section in only]
    if not quick and out.resolve() == ROOT / "docs" and only:
        typer.echo("Note: the page will hold the chosen sections only.", err=True)
    if quick:
        torch.set_num_threads(1)  # on tiny work threads cost more than they bring
    images = out / "images" / "benchmarks"
    images.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    found: dict[str, Any] = {}
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("measuring", total=len(sections))

        def say(text: str) -> None:
            progress.update(task, description=text)

        setting = Setting(device.value, min(repeats, 2) if quick else repeats, quick, say)
        for section in sections:
            found[section.value] = MEASURE[section](setting)
            progress.advance(task)
    flags = [f"--device {device.value}"] if device is Device.CUDA else []
    flags += [f"--repeats {repeats}"] if repeats != 3 else []
    flags += [f"--only {section.value}" for section in only or []]
    results = {
        "machine": machine(device.value),
        "setting": {"device": device.value, "repeats": setting.repeats, "quick": quick},
        "flags": flags + (["--quick"] if quick else []),
        "minutes": (time.perf_counter() - started) / 60,
        "sections": found,
    }
    page = out / ("benchmarks.md" if device is Device.CPU else "benchmarks-cuda.md")
    page.write_text(compose(results, out, images), encoding="utf-8")
    text = json.dumps(results, indent=1) + "\n"
    (out / _json_name(device.value)).write_text(text, encoding="utf-8")
    typer.echo(f"Written: {page}")


if __name__ == "__main__":
    typer.run(main)
