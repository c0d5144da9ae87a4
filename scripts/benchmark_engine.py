"""What each shortcut of the engine brings, and when the region field beats backwards."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from benchmark_peers import unetcam, unetcam_plain
from benchmark_plots import curves
from benchmark_timing import Setting, Task, Work, alternate, goal, ratio, seconds, table, times_as
from torch import Tensor

import unetcam.models.tapped_model as network_room
from unetcam import UNetCAM
from unetcam.engine import Request, backward, conv_backward
from unetcam.engine.conv_backward import Branch, Plan
from unetcam.engine.logits_conv import Head
from unetcam.engine.shortcuts import Shortcuts
from unetcam.targets import Region

# -- the shortcuts, each switched off alone --------------------------------------------------

Reached = list[str]


@contextmanager
def without_skips(reached: Reached) -> Iterator[None]:
    """Also ask for the gradient towards the tensors that need none, and throw it away."""

    class WithSkips(Shortcuts):
        def _needed(self, whole: Tensor, *, foldable: bool) -> list[tuple[Tensor, Branch]]:
            needed = super()._needed(whole, foldable=foldable)
            cat = self._cats.get(whole)
            start = 0
            for tensor in cat or ():
                if not tensor.requires_grad:
                    reached.append("skip")
                    needed.append((tensor, Branch(tensor.shape, start, tensor.dtype)))
                start += tensor.shape[1]
            return needed

    with patch.object(backward, "Shortcuts", WithSkips):
        yield


@contextmanager
def without_deepest_sum(reached: Reached) -> Iterator[None]:
    """Compute the deepest layer's gradient, and not only its sum."""

    class WithoutLeaf(Shortcuts):
        def leaf(self, tensor: Tensor) -> None:
            reached.append("leaf")

    with patch.object(backward, "Shortcuts", WithoutLeaf):
        yield


@contextmanager
def without_head(reached: Reached) -> Iterator[None]:
    """Send the zeros of the other classes through the head as well."""

    class WithoutHead(Shortcuts):
        def head(self, logits: Tensor) -> Head:
            reached.append("head")
            return Head(None)

    with patch.object(backward, "Shortcuts", WithoutHead):
        yield


@contextmanager
def without_normalisation(reached: Reached) -> Iterator[None]:
    """Leave the normalisations to autograd."""

    class WithoutFolding(Shortcuts):
        def _normalise(self, *args: Any, **kwargs: Any) -> None:
            reached.append("normalise")

    with patch.object(backward, "Shortcuts", WithoutFolding):
        yield


@contextmanager
def without_enlargement(reached: Reached) -> Iterator[None]:
    """Leave the nearest-neighbour upsampling to autograd."""

    class WithoutFolding(Shortcuts):
        def _needed(self, whole: Tensor, *, foldable: bool) -> list[tuple[Tensor, Branch]]:
            reached.append("enlargement")
            return super()._needed(whole, foldable=False)

    with patch.object(backward, "Shortcuts", WithoutFolding):
        yield


class _Unmirrored(Plan):
    def is_mirrored(self) -> bool:
        return False


@contextmanager
def without_mirror(reached: Reached) -> Iterator[None]:
    """Leave the convolutions' backward to torch's own routine, where nothing is enlarged."""
    kept = conv_backward.whole_gradient

    def plain(grad: Tensor, branch: Branch, plan: Plan) -> Tensor:
        reached.append("mirror")
        return kept(grad, branch, _Unmirrored(**{f.name: getattr(plan, f.name) for f in _FIELDS}))

    with patch.object(conv_backward, "whole_gradient", plain):
        yield


_FIELDS = fields(Plan)


@contextmanager
def without_channels_last(reached: Reached) -> Iterator[None]:
    """Hand the images on as they are."""

    def plain(*args: Any, **kwargs: Any) -> Any:
        reached.append("channels last")
        return replace(Request(*args, **kwargs), channels_last=False)

    with patch.object(network_room, "Request", plain):
        yield


@contextmanager
def without_span(reached: Reached) -> Iterator[None]:
    """Go backward for every class, however narrow the head."""

    def never(*_: Any) -> None:
        reached.append("span")

    with patch.object(backward, "statistics_by_span", never):
        yield


@contextmanager
def without_sharing(reached: Reached) -> Iterator[None]:
    """Go backward for each target alone."""

    def one(logits: Tensor) -> int:
        reached.append("sharing")
        return 1

    with patch.object(backward, "_targets_at_once", one):
        yield


@dataclass(frozen=True)
class Step:
    """A shortcut: what it was expected to bring, how it is switched off, and where it applies.

    Without a task of its own it is measured on the work of the main comparison.
    """

    name: str
    expected: str
    off: Callable[[Reached], contextlib.AbstractContextManager[None]]
    task: Task | None = None


STEPS = (
    Step("no gradient towards skips", "23 % of the tail's convolution work", without_skips),
    Step("only the sum at the deepest layer", "17 %", without_deepest_sum),
    Step("the head takes one class", "8 %", without_head),
    Step("normalisation folded in", "no figure", without_normalisation),
    Step("channels last (CPU)", "1.2x, that is 17 %", without_channels_last),
    Step(
        "nearest upsampling folded into the convolution",
        "not foreseen: added",
        without_enlargement,
    ),
    Step(
        "backward as a convolution with the mirrored kernel (CPU)",
        "not foreseen: added",
        without_mirror,
    ),
)

#: What the main comparison's images are too large, or its head too wide, for.
ELSEWHERE = (
    Step(
        "a narrow 1x1 head: a backward for each of its inputs, not for each class",
        "as many times as classes outnumber the head's inputs",
        without_span,
        Task(classes=117, batch=1, side=48, layers=3, dims=3),
    ),
    Step(
        "small images: targets share a backward",
        "more on a GPU than here",
        without_sharing,
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
    task = Task.tiny() if setting.quick else Task()
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

        def switched_off(step: Step = step) -> Any:
            reached: Reached = []
            with step.off(reached):
                maps = unetcam(work, everything)
            if not reached:
                raise RuntimeError(f"Nothing was switched off with '{step.name}'.")
            return maps

        _check_same(expected, switched_off(), step.name)
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

    def explain(off: bool) -> Any:
        reached: Reached = []
        with step.off(reached) if off else contextlib.nullcontext():
            maps = unetcam(work, range(work.task.classes))
        if off and not reached:
            raise RuntimeError(f"Nothing was switched off with '{step.name}'.")
        return maps

    _check_same(explain(False), explain(True), step.name)
    times = alternate(
        {"on": partial(explain, False), "off": partial(explain, True)},
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


def _check_same(expected: Any, found: Any, name: str) -> None:
    for layer, maps in expected.items():
        error = ((found[layer] - maps).abs().max() / maps.abs().max()).item()
        if not error < 1e-4:
            raise RuntimeError(f"Without '{name}' the maps of '{layer}' differ by {error:.1e}.")


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
        _check_same(
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
