"""What each shortcut of the engine brings, and when the region field beats backwards."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from benchmark_peers import unetcam, unetcam_plain
from benchmark_plots import curves
from benchmark_timing import Setting, Task, Work, alternate, goal, ratio, seconds, table, times_as
from torch import Tensor

from unetcam import UNetCAM
from unetcam.engine.request import SHORTCUTS, Shortcut
from unetcam.targets import ClassScore, Region

# -- the shortcuts, each switched off alone --------------------------------------------------


class Taken(frozenset[Shortcut]):
    """Shortcuts that the engine takes, and the names that it looked for."""

    queried: set[object]

    def __new__(cls, taken: Iterable[Shortcut]) -> Taken:
        """Of the names of the shortcuts that are taken."""
        made = super().__new__(cls, taken)
        made.queried = set()
        return made

    def __contains__(self, name: object) -> bool:
        """Whether it is taken."""
        self.queried.add(name)
        return super().__contains__(name)


class NothingToSwitchOffError(RuntimeError):
    """A shortcut was never looked for, as the work has no use for it."""


def without(shortcut: Shortcut, work: Work, classes: Sequence[int]) -> Any:
    """Every class and layer in one call, with one shortcut switched off."""
    cam = UNetCAM(work.model, list(work.layers))
    cam._tapped.shortcuts = taken = Taken(SHORTCUTS - {shortcut})
    maps = dict(cam(work.images, [ClassScore(c) for c in classes]).maps)
    if shortcut not in taken.queried:
        raise NothingToSwitchOffError(f"Nothing was switched off with '{shortcut}'.")
    return maps


@dataclass(frozen=True)
class Step:
    """A shortcut: what it was expected to bring, its name in the engine, and where it applies.

    Without a task of its own it is measured on the work of the main comparison.
    """

    name: str
    expected: str
    shortcut: Shortcut
    task: Task | None = None


STEPS = (
    Step("no gradient towards skips", "23 % of the tail's convolution work", "skips"),
    Step("only the sum at the deepest layer", "17 %", "deepest sum"),
    Step("the head takes one class", "8 %", "head"),
    Step("normalisation folded in", "no figure", "normalisation"),
    Step("channels last (CPU)", "1.2x, that is 17 %", "channels last"),
    Step(
        "nearest upsampling folded into the convolution",
        "not foreseen: added",
        "enlargement",
    ),
    Step(
        "backward as a convolution with the mirrored kernel (CPU)",
        "not foreseen: added",
        "mirrored kernel",
    ),
)

#: What the main comparison's images are too large, or its head too wide, for.
ELSEWHERE = (
    Step(
        "a narrow 1x1 head: a backward for each of its inputs, not for each class",
        "as many times as classes outnumber the head's inputs",
        "span",
        Task(classes=117, batch=1, side=48, layers=3, dims=3),
    ),
    Step(
        "small images: targets share a backward",
        "more on a GPU than here",
        "sharing",
        Task(classes=21, batch=1, side=64),
    ),
)

LEFT_OUT = (
    ("CUDA graphs, torch.compile", "not taken: no GPU was there to measure them on"),
    (
        "a low-rank head with a larger kernel",
        "not taken: with a 3x3 kernel the gradients of means span up to nine times the head's "
        "inputs, because borders count apart",
    ),
)


def measure_shortcuts(setting: Setting) -> dict[str, Any]:
    """Time the main work with each step switched off alone, with all, and with none."""
    # Smaller images are not brought into the channels-last format.
    task = replace(Task.tiny(), side=160) if setting.quick else Task()
    work = Work.make(replace(task, device=setting.device))
    everything = range(task.classes)
    expected = unetcam(work, everything)
    contenders: dict[str, Callable[[], Any]] = {
        "all": partial(unetcam, work, everything),
        "none": partial(unetcam_plain, work, everything),
    }
    for step in STEPS:
        if setting.device == "cuda" and "(CPU)" in step.name:
            continue
        setting.say(f"shortcuts: {step.name}")
        switched_off = partial(without, step.shortcut, work, everything)
        check_same(expected, switched_off(), step.name)
        contenders[step.name] = switched_off
    setting.say("shortcuts: each switched off alone")
    times = alternate(
        contenders,
        setting.rounds(3),
        setting.device,
        warm_up=dict.fromkeys(contenders, lambda: None),
    )
    brought = {name: 1 - ratio(times, "all", name) for name in times if name != "all"}
    return {
        "work": work.task.sentence(),
        "times": times,
        "brought": brought,
        "elsewhere": [_measure_elsewhere(setting, step) for step in ELSEWHERE],
    }


def _measure_elsewhere(setting: Setting, step: Step) -> dict[str, Any]:
    """Time a step on the work that it is for, on and off."""
    assert step.task is not None
    setting.say(f"shortcuts: {step.name}")
    task = replace(step.task, classes=9, side=16) if setting.quick else step.task
    work = Work.make(replace(task, device=setting.device))

    everything = range(work.task.classes)
    on, off = partial(unetcam, work, everything), partial(without, step.shortcut, work, everything)
    check_same(on(), off(), step.name)
    times = alternate(
        {"on": on, "off": off},
        setting.rounds(3),
        setting.device,
    )
    return {
        "name": step.name,
        "expected": step.expected,
        "work": work.task.sentence(),
        "times": times,
        "ratio": ratio(times, "off", "on"),
    }


def check_same(expected: Any, found: Any, name: str) -> None:
    """Raise for maps that differ by more than single precision; the tests ask it of double."""
    for layer, maps in expected.items():
        error, peak = (found[layer] - maps).abs().max().item(), maps.abs().max().item()
        if not error <= 1e-3 * peak:
            raise RuntimeError(
                f"Without '{name}' the maps of '{layer}', of at most {peak:.1e}, differ by "
                f"{error:.1e}."
            )


def show_shortcuts(found: Mapping[str, Any], images: Path) -> str:
    """The table of what each step was expected to bring and brought."""
    times, brought = found["times"], found["brought"]
    rows = [
        [
            step.name,
            step.expected,
            seconds(statistics.median(times[step.name])),
            f"{100 * brought[step.name]:.0f} %",
        ]
        for step in STEPS
        if step.name in times
    ]
    rows += [
        [
            "all of them",
            "",
            seconds(statistics.median(times["none"])),
            f"{100 * brought['none']:.0f} %",
        ]
    ]
    rows += [[name, "", "", reason] for name, reason in LEFT_OUT]
    return (
        f"The work of the main comparison: {found['work']}. With every shortcut it takes "
        f"{seconds(statistics.median(times['all']))}. *Brought* is the share of the time that a "
        "step saves when it alone is switched off and the others stay; the steps touch the same "
        "convolutions, so that their shares need not add up. The maps were checked to be equal "
        "each time (1e-4 of the largest value).\n\n"
        + table(["step", "expected", "without it", "brought"], rows)
        + "\n\nWhere the work of the main comparison has no use for a step, another shows it:\n\n"
        + table(
            ["step", "expected", "work", "with it", "without", "ratio"],
            [
                [
                    one["name"],
                    one["expected"],
                    one["work"],
                    seconds(statistics.median(one["times"]["on"])),
                    seconds(statistics.median(one["times"]["off"])),
                    times_as(one["ratio"]),
                ]
                for one in found["elsewhere"]
            ],
        )
    )


# -- the region field ------------------------------------------------------------------------

REGIONS_AT_ONCE = 64
WIDTHS = (16, 32, 64)


def measure_field(setting: Setting) -> dict[str, Any]:
    """Per K: the time to build a field, its maps per second, and the backwards it replaces."""
    found = {}
    side, rounds = (32, 2) if setting.quick else (256, setting.rounds(3))
    for width in WIDTHS[:2] if setting.quick else WIDTHS:
        setting.say(f"field: K = {width}")
        task = Task.tiny() if setting.quick else Task(batch=1, side=side)
        task = replace(task, layers=1, decoder_width=width, device=setting.device)
        work = Work.make(task)
        (layer,), cam = work.layers, UNetCAM(work.model, work.layers)
        masks, classes = _regions(task, work.images.device)
        field = cam.field(work.images, layer)
        many = 3 if setting.quick else 8
        targets = [Region(int(c), m) for c, m in zip(classes[:many], masks[:many], strict=True)]
        direct = cam(work.images, targets)[layer][0]
        check_same(
            {layer: direct},
            {layer: field.region_maps(masks[:many], classes[:many])},
            f"backwards at K = {width}",
        )
        times = alternate(
            {
                "build": partial(cam.field, work.images, layer),
                "maps": partial(field.region_maps, masks, classes),
                "one backward": partial(cam, work.images, targets[:1]),
                "many backwards": partial(cam, work.images, targets),
            },
            rounds,
            setting.device,
        )
        middle = {name: statistics.median(values) for name, values in times.items()}
        further = (middle["many backwards"] - middle["one backward"]) / (many - 1)
        each = middle["maps"] / len(masks)
        found[str(width)] = {
            "times": times,
            "build": middle["build"],
            "maps_per_second": 1 / each,
            "first_backward": middle["one backward"],
            "further_backward": further,
            "beats_from": _break_even(middle["build"], each, middle["one backward"], further),
        }
    return {"side": side, "regions_at_once": len(masks), "widths": found}


def _break_even(build: float, each: float, first: float, further: float) -> float | None:
    """From how many regions on build + n each < first + (n - 1) further."""
    if further <= each:
        return None
    return max(1.0, (build - first + further) / (further - each))


def _regions(task: Task, device: torch.device) -> tuple[Tensor, Tensor]:
    """Rectangles of many places and sizes, with a class each."""
    rows = torch.arange(task.side, device=device)
    masks, third = [], task.side // 3
    for number in range(REGIONS_AT_ONCE):
        top, left = 7 * number % (2 * third), 13 * number % (2 * third)
        height, width = 4 + 5 * number % third, 4 + 3 * number % third
        inside = (rows >= top) & (rows < top + height)
        masks.append(inside[:, None] & ((rows >= left) & (rows < left + width)))
    classes = torch.arange(REGIONS_AT_ONCE, device=device) % task.classes
    return torch.stack(masks), classes


def show_field(found: Mapping[str, Any], images: Path) -> str:
    """The table and the plot of the region field."""
    rows, lines = [], {}
    counts = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]
    for width, one in found["widths"].items():
        beats = one["beats_from"]
        rows.append(
            [
                f"K = {width}",
                seconds(one["build"]),
                f"{one['maps_per_second']:,.0f}",
                seconds(one["first_backward"]),
                seconds(one["further_backward"])
                if one["further_backward"] > 0
                else "within the noise",
                "never" if beats is None else f"{beats:.0f} regions",
            ]
        )
        each = 1 / one["maps_per_second"]
        lines[f"field, K = {width}"] = [one["build"] + n * each for n in counts]
        lines[f"backwards, K = {width}"] = [
            one["first_backward"] + (n - 1) * max(0.0, one["further_backward"]) for n in counts
        ]
    curves(images / "field.png", "regions of one image", counts, lines, "seconds", pairs=True)
    narrow = found["widths"]["16"]["maps_per_second"]
    return (
        f"One image of {found['side']}x{found['side']}; the last decoder layer of the network of "
        "the main comparison, its width set to K; `field.region_maps` of "
        f"{found['regions_at_once']} regions at once. The field's maps were checked to be the "
        "backwards'.\n\n"
        + table(
            [
                "layer",
                "build",
                "maps per second",
                "first backward, with its forward",
                "each further",
                "field is faster from",
            ],
            rows,
        )
        + f"\n\nMaps per second at K = 16, {times_as(narrow / 1000)} the goal of 1,000: "
        + goal(narrow, 1000, most=False)
        + ".\n\n![Time for n regions of one image: field against backwards]"
        "(images/benchmarks/field.png)"
    )
