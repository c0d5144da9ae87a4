"""Scale the channels of a layer that drive an error, and predict again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from unetcam.cam import UNetCAM
from unetcam.engine.forward_watch import RunCounter
from unetcam.engine.hooks import on_this_thread
from unetcam.engine.request import TapPoint
from unetcam.errors import DataError, LayerError, TargetError
from unetcam.interventions.effects import Baseline
from unetcam.interventions.prediction import Head, Predictor, predictor_of
from unetcam.interventions.stages import replaced
from unetcam.methods.gradient import GradCAM
from unetcam.models.loaded_model import LoadedModel
from unetcam.resizing import averaged
from unetcam.targets import Contrast


@dataclass(frozen=True, eq=False)
class ScaledChannels:
    """What became of an error when the channels that drive it were scaled.

    Attributes
    ----------
    layer : str
    channels : tuple of int
        The scaled channels, the strongest drive first.
    drives : Tensor
        (K,) float64, in logits, how much each of the layer's channels speaks for the wrong class
        and against the right one in the error's pixels: the sum of its gradient times its mean
        there, averaged over the images. Exact where the layer reaches the logits linearly and
        pixel by pixel.
    factor : float
    image : Tensor
        (N,) int64, the images that show the error.
    errors : Tensor
        (N, *spatial) bool, its pixels.
    masks : Tensor
        (N, *spatial) bool, where the class is predicted with these channels scaled.
    mended, mended_control : Tensor
        (N,) float64, the share of the error's pixels that are predicted as the class now, and when
        as many other channels, drawn at random, are scaled (the mean over draws).
    dice_before, dice_after, dice_control : Tensor
        (N,) float64, the class's Dice.
    forwards : int
        How many images went through the network.
    """

    layer: str
    channels: tuple[int, ...]
    drives: Tensor
    factor: float
    image: Tensor
    errors: Tensor
    masks: Tensor
    mended: Tensor
    mended_control: Tensor
    dice_before: Tensor
    dice_after: Tensor
    dice_control: Tensor
    forwards: int


def scale_channels(
    model: nn.Module | LoadedModel,
    images: Tensor,
    truth: Tensor,
    layer: str,
    *,
    class_index: int,
    taken_for: int,
    count: int = 4,
    factor: float = 0.0,
    draws: int = 4,
    head: Head = "softmax",
    seed: int = 0,
    memory_budget: int | float | None = None,
) -> ScaledChannels:
    """Scale the channels that make a network take one class for another, with a control.

    Parameters
    ----------
    model : nn.Module or LoadedModel
        Left as found.
    images : Tensor
        (B, C, *spatial), as the model takes them, on its device.
    truth : Tensor
        (B, *spatial) class indices, -1 where ignored.
    layer : str
        A layer that gives a map (B, K, *layer_spatial), or what enters a stage, as ``"up3:skip"``.
    class_index, taken_for : int
        The error: pixels of the first class that are predicted as the second.
    count : int
        How many channels are scaled, those that drive the error most.
    factor : float
        By what; 0 takes them out.
    draws : int
        How many sets of as many other channels the control is averaged over.
    head : {"softmax", "sigmoid"}
    seed : int
        Seeds the control's draws.
    memory_budget : int or float, optional
        Bytes, or a share of what is free; see :class:`~unetcam.UNetCAM`.

    Returns
    -------
    ScaledChannels

    Raises
    ------
    DataError
        Where no image shows the error.
    LayerError
        For an unknown layer, one of tokens, or one with too few channels.
    TargetError
        For a class that the network does not have, or one class twice.

    Examples
    --------
    Channel 1 alone speaks for class 2, and it is bright where class 1 is:

    >>> class Net(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.features, self.head = nn.Identity(), nn.Conv2d(2, 3, 1)
    ...         self.head.weight.data = torch.tensor([[0.0, 0], [1, 0], [0, 2]]).view(3, 2, 1, 1)
    ...         self.head.bias.data = torch.tensor([0.5, 0, 0])
    ...     def forward(self, x):
    ...         return self.head(self.features(2 * x))
    >>> image = torch.zeros(1, 2, 4, 4)
    >>> image[:, :, 1:3, 1:3] = 1.0
    >>> truth = (image[:, 0] > 0).long()
    >>> scaled = scale_channels(
    ...     Net(), image, truth, "features", class_index=1, taken_for=2, count=1)
    >>> scaled.channels, scaled.drives  # 2 * 2 for class 2, -1 * 2 for class 1
    ((1,), tensor([-2.,  4.], dtype=torch.float64))
    >>> scaled.dice_before.item(), scaled.dice_after.item(), scaled.dice_control.item()
    (0.0, 1.0, 0.0)
    """
    loaded = model if isinstance(model, LoadedModel) else LoadedModel.of(model)
    predictor = predictor_of(loaded, head=head, memory_budget=memory_budget)
    baseline = Baseline.of(predictor, images, truth, head)
    _check(baseline.classes, class_index, taken_for)
    wrong = baseline.truth[:, class_index] & baseline.predicted[:, taken_for]
    if head == "sigmoid":
        wrong = wrong & ~baseline.predicted[:, class_index]
    image = wrong.flatten(1).any(1).nonzero()[:, 0]
    if not len(image):
        raise DataError(
            f"No pixel of class {class_index} is predicted as class {taken_for} in these images: "
            "name an error that they show."
        )
    errors = wrong[image]
    (point,) = loaded.tap_points(loaded.addresses([layer]), images[:1]).values()
    if point.layout is not None and point.layout.flat:
        raise LayerError(
            f"The layer '{layer}' gives tokens and no map of channels (B, K, *spatial): choose "
            "another one (find_layers lists them)."
        )
    drives = _drives(loaded, predictor, images[image], errors, layer, class_index, taken_for)
    if not 0 < count < len(drives):
        raise LayerError(
            f"{count} of the {len(drives)} channels of '{layer}' can't be scaled beside others as "
            f"a control: give count= between 1 and {len(drives) - 1}."
        )
    order = drives.argsort(descending=True, stable=True)
    strongest, others = order[:count], order[count:]
    generator = torch.Generator().manual_seed(seed)
    sets = [others[torch.randperm(len(others), generator=generator)[:count]] for _ in range(draws)]
    after, *controls = (
        _predicted(predictor, images[image], layer, point, _scale(len(drives), one, factor))
        for one in (strongest, *sets)
    )
    known = baseline.known.expand_as(baseline.truth)[image, class_index]
    right = baseline.truth[image, class_index]

    def measured(masks: Tensor) -> tuple[Tensor, Tensor]:
        mask = masks[:, class_index] & known
        return _share(errors & mask, errors), _dice(right, mask)

    mended, dice = measured(after)
    control = [torch.stack(one).mean(dim=0) for one in zip(*map(measured, controls), strict=True)]
    return ScaledChannels(
        layer=layer,
        channels=tuple(strongest.tolist()),
        drives=drives,
        factor=factor,
        image=image,
        errors=errors,
        masks=after[:, class_index] & known,
        mended=mended,
        mended_control=control[0],
        dice_before=_dice(right, baseline.predicted[image, class_index]),
        dice_after=dice,
        dice_control=control[1],
        forwards=predictor.forwards,
    )


def _check(classes: int, class_index: int, taken_for: int) -> None:
    for index in (class_index, taken_for):
        if not 0 <= index < classes:
            raise TargetError(
                f"There is no class {index}: the network has {classes} classes (0 to "
                f"{classes - 1})."
            )
    if class_index == taken_for:
        raise TargetError(
            f"Class {class_index} can't be taken for itself: give another class as taken_for=."
        )


class _Kept(GradCAM):
    """Grad-CAM that keeps what its maps are made of."""

    def __init__(self) -> None:
        self.parts: list[tuple[Tensor, Tensor]] = []

    def combine(self, activation: Tensor, statistics: Tensor) -> Tensor:
        self.parts.append((activation.detach(), statistics.detach()[:, 0]))
        return super().combine(activation, statistics)


def _drives(
    loaded: LoadedModel,
    predictor: Predictor,
    images: Tensor,
    errors: Tensor,
    layer: str,
    class_index: int,
    taken_for: int,
) -> Tensor:
    """(K,) float64, on the CPU."""
    kept = _Kept()

    def explained(numbers: Tensor) -> Tensor:
        contrast = Contrast(taken_for, against=class_index, within=errors[numbers])
        kept.parts.clear()
        with UNetCAM(loaded, [layer], kept, head=predictor.head) as cam:
            cam(images[numbers], targets=[contrast])
        predictor.forwards += len(numbers)
        rows = []
        for activation, weights in kept.parts:
            where = averaged(errors[numbers][:, None].float(), activation.shape[2:]).flatten(2)
            values = activation.flatten(2).double()
            mean = (values * where).sum(dim=2) / where.sum(dim=2)
            rows.append(mean * weights.double() * values.shape[2])
        return torch.cat(rows)

    numbers = torch.arange(len(images), device=images.device)
    return torch.cat(predictor.in_chunks(explained, numbers, images)).mean(dim=0).cpu()


def _scale(count: int, channels: Tensor, factor: float) -> Tensor:
    scale = torch.ones(count)
    scale[channels] = factor
    return scale


def _predicted(
    predictor: Predictor, images: Tensor, layer: str, point: TapPoint, scale: Tensor
) -> Tensor:
    """Where each class is predicted with the layer's channels scaled, (N, classes, *spatial)."""
    logits = partial(_scaled_logits, predictor, layer, point, scale)
    scaled = Predictor(logits, predictor.head, predictor.memory_budget)
    return scaled(images).masks


def _scaled_logits(
    predictor: Predictor, layer: str, point: TapPoint, scale: Tensor, images: Tensor
) -> Tensor:
    with _scaled(layer, point, scale):
        return predictor.logits(images)


@contextmanager
def _scaled(layer: str, point: TapPoint, scale: Tensor) -> Iterator[None]:
    """Inside, a layer's channels are scaled wherever its output is used."""

    def times(tensor: Tensor) -> Tensor:
        shape = [1, -1, *[1] * (tensor.ndim - 2)]
        return tensor * scale.to(tensor).view(shape)

    if point.entry is not None:
        with replaced({layer: point}, lambda _, tensor: times(tensor)):
            yield
        return
    counter = RunCounter(layer, point.run)

    def give(module: nn.Module, given: Any, output: Any) -> Any:
        return times(output) if counter.is_next(again=False) else None

    handle = point.module.register_forward_hook(on_this_thread(give))
    try:
        yield
    finally:
        handle.remove()


def _share(part: Tensor, whole: Tensor) -> Tensor:
    return part.flatten(1).sum(1).double() / whole.flatten(1).sum(1)


def _dice(truth: Tensor, predicted: Tensor) -> Tensor:
    size = truth.flatten(1).sum(1) + predicted.flatten(1).sum(1)
    return 2 * (truth & predicted).flatten(1).sum(1).double() / size
