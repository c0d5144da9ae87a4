"""The main comparison, the cost of a target, and the scaling curves."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from benchmark_peers import CONTENDERS, Contender, plain_forward, torchcam, unetcam
from benchmark_plots import bars, panels
from benchmark_timing import (
    Setting,
    Task,
    Times,
    Work,
    alternate,
    goal,
    megabytes,
    peak_memory,
    ratio,
    seconds,
    spread,
    table,
    times_as,
)

from unetcam import UNetCAM
from unetcam.targets import ClassScore

OURS = "unetcam"
#: Contender: at least so many times our time, on the CPU and on a GPU; to reach for.
GOALS = {
    "torchcam, best use": {"cpu": (1.6, 2.5), "cuda": (3.0, 6.0)},
    "pytorch-grad-cam, best use": {"cpu": (10.0, 10.0), "cuda": (10.0, 10.0)},
    "pytorch-grad-cam, documented": {"cpu": (40.0, 40.0), "cuda": (40.0, 40.0)},
}


def measure_main(setting: Setting) -> dict[str, Any]:
    """All contenders on the same work, in turn; then the memory of each in its own process."""
    task = Task.tiny() if setting.quick else Task()
    work = Work.make(replace(task, device=setting.device))
    setting.say("main: are the maps the same?")
    errors = _compare_maps(work)

    def on(contender: Contender) -> int:
        return min(task.classes, contender.measured_classes or task.classes)

    setting.say("main: all contenders in turn")
    times = alternate(
        {c.name: partial(c.run, work, range(on(c))) for c in CONTENDERS},
        setting.repeats,
        setting.device,
        warm_up={c.name: partial(c.run, work, range(1)) for c in CONTENDERS},
    )
    memory: dict[str, int | None] = dict.fromkeys(times)
    for contender in CONTENDERS:
        if setting.quick and contender.name != OURS:
            continue
        setting.say(f"main: memory of {contender.name}")
        memory[contender.name] = peak_memory(contender.name, work.task, on(contender))
    scale = {c.name: task.classes / on(c) for c in CONTENDERS}
    return {
        "work": work.task.sentence(),
        "device": setting.device,
        "classes": task.classes,
        "measured_classes": {c.name: on(c) for c in CONTENDERS},
        "times": times,
        "seconds": {n: scale[n] * statistics.median(t) for n, t in times.items()},
        "lowest_highest": {n: spread(t, scale[n]) for n, t in times.items()},
        "ratios": {n: ratio(times, n, OURS, scale[n]) for n in times},
        "forwards": ratio(times, OURS, "plain forward"),
        "memory": memory,
        "errors": errors,
    }


def _compare_maps(work: Work) -> dict[str, float]:
    """The largest difference of a peer's raw maps from ours, in shares of the largest value."""
    classes = range(min(2, work.task.classes))
    ours = unetcam(work, classes)
    errors: dict[str, float] = {}
    for contender in CONTENDERS:
        if not contender.raw or contender.name == OURS:
            continue
        found = contender.run(work, classes)
        if found is None or ours is None:
            raise RuntimeError(f"{contender.name} gives no raw maps.")
        errors[contender.name] = max(
            ((found[n] - ours[n]).abs().max() / ours[n].abs().max()).item() for n in ours
        )
        if not errors[contender.name] < 1e-3:
            raise RuntimeError(f"{contender.name} computes other maps: {errors[contender.name]}.")
    return errors


def show_main(found: Mapping[str, Any], images: Path, gpu: Mapping[str, Any] | None) -> str:
    """The table of the contenders, and the goals."""
    rows = []
    for contender in CONTENDERS:
        name, on = contender.name, found["measured_classes"][contender.name]
        note = "all classes" if on == found["classes"] else f"{on} of {found['classes']}, scaled"
        other = "not measured" if gpu is None else seconds(gpu["seconds"][name])
        error = found["errors"].get(name)
        rows.append(
            [
                f"**{name}**: {contender.how}",
                seconds(found["seconds"][name]),
                found["lowest_highest"][name],
                times_as(found["ratios"][name]),
                megabytes(found["memory"][name]),
                note,
                "" if error is None else f"{error:.0e}",
                *([other] if found["device"] == "cpu" else []),
            ]
        )
    header = ["tool", "median", "lowest to highest", "in unetcam's time", "peak memory"]
    header += ["measured on", "differs from our maps", *["GPU"][: found["device"] == "cpu"]]
    bars(images / "main.png", found["seconds"], "seconds, logarithmic")
    goals = [
        [
            name,
            times_as(found["ratios"][name]),
            goal(found["ratios"][name], limits[found["device"]][0], most=False),
            f"{limits[found['device']][1]:g}",
        ]
        for name, limits in GOALS.items()
    ]
    ours, other = (found["memory"][name] for name in (OURS, "torchcam, best use"))
    more = ""
    if ours is not None and other is not None:
        more = f" Memory against torchcam: {ours / max(other, 1):.2f} times as much."
    return (
        f"{found['work']}; the mean logit of every class is explained. Slow tools are measured "
        "on fewer classes and scaled linearly, as the table says; each of them makes a call of "
        "its own per class. Peak memory is what a process of its own grows by (on a GPU: what "
        "torch allocates beyond network and images). Maps are compared in raw form, in shares of "
        "the largest value, on two classes; pytorch-grad-cam gives scaled maps only.\n\n"
        + table(header, rows)
        + f"\n\nunetcam takes {found['forwards']:.3g} plain forwards for all "
        f"{found['classes']} classes.{more}\n\n"
        + table(["against", "ratio", "goal", "to reach for"], goals)
        + "\n\n![Seconds by tool](images/benchmarks/main.png)"
    )


# -- one target ------------------------------------------------------------------------------

FURTHER = 8


def measure_targets(setting: Setting) -> dict[str, Any]:
    """One target at the last layer, shallower layers besides the deepest, further targets."""
    task = Task.tiny(10) if setting.quick else Task()
    work = Work.make(replace(task, device=setting.device))

    def explain(layers: tuple[str, ...], count: int, shortcuts: bool = True) -> Callable[[], Any]:
        cam = UNetCAM(work.model, list(layers), shortcuts=shortcuts)
        return partial(cam, work.images, [ClassScore(c) for c in range(count)])

    last, deepest, every = work.layers[-1:], work.layers[:1], work.layers
    setting.say("targets: one and more")
    times = alternate(
        {
            "plain forward": partial(plain_forward, work, ()),
            "last layer, 1 target": explain(last, 1),
            "deepest layer, 1 target": explain(deepest, 1),
            "all layers, 1 target": explain(every, 1),
            "all layers, 9 targets": explain(every, 1 + FURTHER),
            "all layers, 1 target, whole backwards": explain(every, 1, False),
            "all layers, 9 targets, whole backwards": explain(every, 1 + FURTHER, False),
        },
        setting.repeats,
        setting.device,
    )
    middle = {name: statistics.median(values) for name, values in times.items()}
    one, nine = "all layers, 1 target", "all layers, 9 targets"
    return {
        "work": work.task.sentence(),
        "times": times,
        "forwards": {n: ratio(times, n, "plain forward") for n in times},
        "shallower": ratio(times, one, "deepest layer, 1 target"),
        "further": (middle[nine] - middle[one]) / FURTHER,
        "whole": (middle[f"{nine}, whole backwards"] - middle[f"{one}, whole backwards"]) / FURTHER,
        "forward": middle["plain forward"],
    }


def show_targets(found: Mapping[str, Any], images: Path) -> str:
    """The table of one target's cost, and the goals."""
    rows = [
        [name, seconds(statistics.median(values)), f"{found['forwards'][name]:.2f}"]
        for name, values in found["times"].items()
    ]
    single = found["forwards"]["last layer, 1 target"]
    further, whole, forward = found["further"], found["whole"], found["forward"]
    goals = [
        [
            "one target at the last layer, in plain forwards",
            f"{single:.2f}",
            goal(single, 1.2, most=True),
        ],
        [
            "all layers, in the time of the deepest alone",
            f"{found['shallower']:.2f}",
            "none: "
            + ("met" if found["shallower"] <= 1.05 else "missed")
            + " (up to 5 % is taken for noise)",
        ],
        [
            "each further target, in whole backwards of the tail",
            f"{further / whole:.2f}",
            goal(further / whole, 1.0, most=True),
        ],
        ["each further target, in plain forwards", f"{further / forward:.2f}", ""],
    ]
    return (
        f"The network and images of the main comparison ({found['work']}).\n\n"
        + table(["what", "median", "in plain forwards"], rows)
        + "\n\n"
        + table(["cost", "measured", "goal"], goals)
    )


# -- scaling ---------------------------------------------------------------------------------


def _axes(quick: bool) -> dict[str, list[tuple[int, Task]]]:
    """By axis: the points, each with its work."""
    if quick:
        small = Task.tiny()
        return {
            "classes": [(n, replace(small, classes=n)) for n in (1, 4)],
            "layers": [(n, replace(small, layers=n)) for n in (1, 5)],
            "side, 3-D": [(n, Task(2, 1, n, 3, 3)) for n in (8, 16)],
        }
    few = Task(classes=4, batch=1)
    return {
        "classes": [(n, Task(classes=n, batch=1)) for n in (1, 5, 21, 50, 150)],
        "side": [(n, replace(few, side=n)) for n in (64, 128, 256, 512, 1024)],
        "layers": [(n, replace(few, classes=8, layers=n)) for n in (1, 2, 3, 4, 5)],
        "batch": [(n, replace(few, batch=n)) for n in (1, 2, 4, 8, 16)],
        "classes, 3-D": [(n, Task(n, 1, 48, 3, 3)) for n in (1, 4, 16, 117)],
        "side, 3-D": [(n, Task(4, 1, n, 3, 3)) for n in (16, 32, 64)],
    }


def measure_scaling(setting: Setting) -> dict[str, Any]:
    """unetcam and torchcam along each axis."""
    found: dict[str, Any] = {}
    for axis, points in _axes(setting.quick).items():
        found[axis] = []
        for value, task in points:
            setting.say(f"scaling: {axis} {value}")
            work = Work.make(replace(task, device=setting.device))
            first = range(1)
            times: Times = alternate(
                {
                    "unetcam": partial(unetcam, work, range(task.classes)),
                    "torchcam": partial(torchcam, work, range(task.classes)),
                },
                setting.rounds(2),
                setting.device,
                warm_up={
                    "unetcam": partial(unetcam, work, first),
                    "torchcam": partial(torchcam, work, first),
                },
            )
            found[axis].append(
                {
                    "value": value,
                    "task": asdict(work.task),
                    "times": times,
                    "ratio": ratio(times, "torchcam", "unetcam"),
                }
            )
            del work
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
    return {"axes": found}


def show_scaling(found: Mapping[str, Any], images: Path) -> str:
    """The plot of the curves and their table."""
    parts, rows = {}, []
    for axis, points in found["axes"].items():
        tools = {
            tool: [statistics.median(point["times"][tool]) for point in points]
            for tool in ("unetcam", "torchcam")
        }
        parts[axis] = ([point["value"] for point in points], tools)
        for position, point in enumerate(points):
            task = Task(**point["task"])
            rows.append(
                [
                    f"{axis}: {point['value']}",
                    f"{task.classes} classes x {task.layers} layers, batch {task.batch}, "
                    + "x".join([str(task.side)] * task.dims),
                    seconds(tools["unetcam"][position]),
                    seconds(tools["torchcam"][position]),
                    times_as(point["ratio"]),
                ]
            )
    panels(images / "scaling.png", parts, "seconds")
    return (
        "unetcam against torchcam in its best use, the network of the main comparison (2-D) and a "
        "3-D U-Net of three downsamplings with nearest upsampling and 8 to 64 channels.\n\n"
        "![Seconds of unetcam and torchcam by classes, side, layers and batch]"
        "(images/benchmarks/scaling.png)\n\n"
        + table(["point", "work", "unetcam", "torchcam", "ratio"], rows)
    )
