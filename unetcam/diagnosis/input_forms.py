"""Other forms in which the same images can be given: ranges, normalisations, orientations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import combinations

import torch
from torch import Tensor


@dataclass(frozen=True)
class Form:
    """Another form in which the same images can be given.

    Attributes
    ----------
    description : str
        To be read behind "given".
    apply : callable
        Images (B, C, *spatial) as they are, to images of that form.
    undo : callable
        Masks (B, classes, *spatial) of such images, back to where the pixels were.
    """

    description: str
    apply: Callable[[Tensor], Tensor]
    undo: Callable[[Tensor], Tensor] = lambda masks: masks


_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, of images in [0, 1]


def _statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """ImageNet's mean and standard deviation, of grey for what isn't three channels."""
    channels = images.shape[1]
    mean, std = (_MEAN, _STD) if channels == 3 else ((0.449,), (0.226,))
    shape = [1, -1, *[1] * (images.ndim - 2)]
    return images.new_tensor(mean).view(shape), images.new_tensor(std).view(shape)


def _read_as(images: Tensor) -> Iterator[tuple[str, Callable[[Tensor], Tensor]]]:
    """What the images may be now, as maps to [0, 1]; only what fits their values."""

    def fits(read: Callable[[Tensor], Tensor]) -> bool:
        values = read(images)
        low, high = float(values.min()), float(values.max())
        return low >= -0.02 and high <= 1.02 and high - low > 0.05

    def normalised(values: Tensor) -> Tensor:
        mean, std = _statistics(values)
        return values * std + mean

    candidates: list[tuple[str, Callable[[Tensor], Tensor]]] = [
        ("0 to 1", lambda values: values),
        ("0 to 255", lambda values: values / 255),
        ("-1 to 1", lambda values: (values + 1) / 2),
        ("ImageNet's normalisation", normalised),
        ("ImageNet's normalisation of 1/255", lambda values: 255 * normalised(values)),
    ]
    for name, read in candidates:
        if fits(read):
            yield name, read


def _written_as() -> Iterator[tuple[str, Callable[[Tensor], Tensor]]]:
    """Forms that networks are trained on, made of images in [0, 1]."""

    def normalised(values: Tensor) -> Tensor:
        mean, std = _statistics(values)
        return (values - mean) / std

    yield "in 0 to 1", lambda values: values
    yield "in 0 to 255", lambda values: 255 * values
    yield "in -1 to 1", lambda values: 2 * values - 1
    yield "with ImageNet's mean and standard deviation", normalised


def _each_standardised(images: Tensor) -> Tensor:
    dims = tuple(range(2, images.ndim))
    mean, std = images.mean(dims, keepdim=True), images.std(dims, keepdim=True, correction=0)
    return (images - mean) / torch.where(std > 0, std, torch.ones_like(std))


def _each_stretched(images: Tensor) -> Tensor:
    dims = tuple(range(1, images.ndim))
    low, high = images.amin(dims, keepdim=True), images.amax(dims, keepdim=True)
    return (images - low) / torch.where(high > low, high - low, torch.ones_like(high))


def _inverted(images: Tensor) -> Tensor:
    return images.amin() + images.amax() - images


def forms(images: Tensor) -> list[Form]:
    """Other forms of images, by what they may be now and what the network may have been made for.

    Ranges and normalisations (0 to 1, 0 to 255, -1 to 1, ImageNet's, per image), the order of
    the channels, bright for dark, and orientations.

    Parameters
    ----------
    images : Tensor
        (B, C, *spatial).

    Examples
    --------
    >>> import torch
    >>> [form.description for form in forms(torch.linspace(0, 255, 64).view(1, 1, 8, 8))][:2]
    ['in 0 to 1 and not in 0 to 255', 'in -1 to 1 and not in 0 to 255']
    """
    others: list[Form] = []
    for now, read in _read_as(images):
        for wanted, write in _written_as():
            if now in wanted or (now.startswith("ImageNet's normal") and "ImageNet" in wanted):
                if now.endswith("1/255") and "ImageNet" in wanted:
                    text = (
                        "normalised by ImageNet's statistics as 0 to 1 and not after another 1/255"
                    )
                    others.append(Form(text, lambda x, r=read, w=write: w(r(x))))  # type: ignore[misc]
                continue
            text = f"{wanted} and not in {now}"
            others.append(Form(text, lambda x, r=read, w=write: w(r(x))))  # type: ignore[misc]
    others.append(Form("with each image's own mean and standard deviation", _each_standardised))
    others.append(Form("with each image stretched to 0 to 1", _each_stretched))
    return others + arrangements(images)


def arrangements(images: Tensor) -> list[Form]:
    """Orders of channels and axes, and bright for dark.

    Each orientation twice: the network may have been trained on images of that orientation, and
    the images may lie otherwise than their masks.
    """
    others = [Form("with bright and dark exchanged", _inverted)]
    if images.shape[1] == 3:
        others.append(Form("with red and blue exchanged (BGR)", lambda x: x.flip(1)))
    for text, turn, back in _orientations(images):
        others.append(Form(f"{text}, masks and all", turn, back))
        others.append(Form(f"{text}, with the masks as they are", turn))
    return others


_Turn = Callable[[Tensor], Tensor]


def _orientations(images: Tensor) -> Iterator[tuple[str, _Turn, _Turn]]:
    """Ways to turn images (B, C, *spatial), and to turn what has turned back."""
    axes = range(2, images.ndim)
    for axis in axes:
        text = "upside down" if axis == images.ndim - 2 else "mirrored"
        if images.ndim == 5:
            text = f"with axis {axis - 2} reversed"
        yield text, partial(torch.flip, dims=(axis,)), partial(torch.flip, dims=(axis,))
    for one, other in combinations(axes, 2):
        if images.shape[one] == images.shape[other]:
            swap = partial(torch.transpose, dim0=one, dim1=other)
            yield f"with axes {one - 2} and {other - 2} exchanged", swap, swap
    if images.ndim == 4 and images.shape[2] == images.shape[3]:
        for turns in (1, 3):
            turn = partial(torch.rot90, k=turns, dims=(2, 3))
            yield (
                f"turned by {90 * turns} degrees",
                turn,
                partial(torch.rot90, k=-turns, dims=(2, 3)),
            )


def chained(first: Form, second: Form) -> Form:
    return Form(
        f"{first.description}, {second.description}",
        lambda images: second.apply(first.apply(images)),
        lambda masks: first.undo(second.undo(masks)),
    )
