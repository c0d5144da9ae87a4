"""Replace what enters a decoder stage by its mean over the data set: what does each class lose?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from unetcam.engine.forward_watch import EntryWatch, RunCounter
from unetcam.engine.hooks import on_this_thread
from unetcam.engine.request import Entry, TapPoint
from unetcam.interventions.effects import Baseline, measure_all_classes
from unetcam.interventions.prediction import Predictor
from unetcam.models.loaded_model import LoadedModel

#: What becomes of the tensor that enters by a part, by the part's name.
Replace = Callable[[str, Tensor], Tensor]


def parts_of(loaded: LoadedModel, images: Tensor) -> dict[str, TapPoint]:
    """Where skips and upsampling paths enter the decoder's stages, by names as ``"up3:skip"``.

    Parameters
    ----------
    loaded : LoadedModel
    images : Tensor
        (B, C, *spatial).

    Returns
    -------
    dict of str to TapPoint
        Those that hold maps (B, K, *spatial); tokens are left out.
    """
    loaded.look(images)
    names = list(loaded.table.parts)
    points = loaded.tap_points(loaded.addresses(names), images) if names else {}
    return {name: point for name, point in points.items() if _is_map(point)}


def _is_map(point: TapPoint) -> bool:
    return point.entry is not None and (point.layout is None or not point.layout.flat)


@contextmanager
def replaced(points: Mapping[str, TapPoint], replace: Replace) -> Iterator[None]:
    """Inside, what enters by each of these parts is what `replace` makes of it.

    Only that use of the tensor is changed; the hooks are gone at the end, also after an exception.
    """
    with ExitStack() as stack:
        for name, point in points.items():
            assert point.entry is not None
            _watch(stack, name, point, point.entry, replace)
        yield


def _watch(stack: ExitStack, name: str, point: TapPoint, entry: Entry, replace: Replace) -> None:
    open_runs: list[ExitStack] = []
    counters: list[RunCounter] = []

    def enter(module: nn.Module, args: Any) -> None:
        open_runs.append(ExitStack())
        if not counters:
            counters.append(RunCounter(name, point.run))
        if counters[0].is_next(again=False):
            watch = EntryWatch(entry, lambda tensor: replace(name, tensor))
            open_runs[-1].enter_context(watch)

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        if open_runs:
            open_runs.pop().close()

    before = point.module.register_forward_pre_hook(on_this_thread(enter))
    after = point.module.register_forward_hook(on_this_thread(leave), always_call=True)
    stack.callback(before.remove)
    stack.callback(after.remove)


def part_means(
    loaded: LoadedModel, points: Mapping[str, TapPoint], predictor: Predictor, images: Tensor
) -> dict[str, Tensor]:
    """What enters by each part on average over images and positions, one value per channel.

    Returns
    -------
    dict of str to Tensor
        (1, K, 1, ...) by part, in the tensor's own precision.
    """
    sums: dict[str, list[Tensor]] = {name: [] for name in points}

    def record(name: str, tensor: Tensor) -> Tensor:
        dims = (0, *range(2, tensor.ndim))
        sums[name].append(tensor.detach().mean(dims, keepdim=True) * len(tensor))
        return tensor

    for chunk in predictor.in_chunks(lambda rows: rows, images, images):
        with replaced(points, record):
            predictor.logits(chunk)
    return {name: torch.stack(parts).sum(0) / len(images) for name, parts in sums.items() if parts}


def stage_effects(
    loaded: LoadedModel, predictor: Predictor, baseline: Baseline, image: Tensor
) -> dict[str, Tensor]:
    """How much of each class flips when what enters a stage is its mean over the data set.

    Parameters
    ----------
    loaded : LoadedModel
        What `predictor` predicts with.
    predictor, baseline
    image : Tensor
        (N,) on which images.

    Returns
    -------
    dict of str to Tensor
        By part, as ``"up3:skip"``, (N, classes) float64, the share of right pixels that flip; NaN
        where there are none.
    """
    points = parts_of(loaded, baseline.images[:1])
    means = part_means(loaded, points, predictor, baseline.images[image])
    return {
        name: part_flips(predictor, baseline, image, name, points[name], mean)
        for name, mean in means.items()
    }


def part_flips(
    predictor: Predictor,
    baseline: Baseline,
    image: Tensor,
    name: str,
    point: TapPoint,
    mean: Tensor,
) -> Tensor:
    """How much of each class flips when what enters by one part is its mean.

    Parameters
    ----------
    predictor, baseline
    image : Tensor
        (N,) on which images.
    name, point : str, TapPoint
        One of :func:`parts_of`.
    mean : Tensor
        (1, K, 1, ...), of :func:`part_means`.

    Returns
    -------
    Tensor
        (N, classes) float64, the share of right pixels that flip; NaN where there are none.
    """

    def replace(_: str, tensor: Tensor) -> Tensor:
        return mean.to(tensor.dtype).expand_as(tensor).clone()

    predict = partial(_predicted, predictor, {name: point}, replace)
    with_mean = Predictor(predict, predictor.head, predictor.memory_budget)
    return measure_all_classes(
        with_mean, baseline, image, lambda numbers: baseline.images[image[numbers]]
    )


def _predicted(
    predictor: Predictor, points: Mapping[str, TapPoint], replace: Replace, images: Tensor
) -> Tensor:
    with replaced(points, replace):
        return predictor.logits(images)
