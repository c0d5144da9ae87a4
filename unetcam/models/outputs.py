"""What a network returns: which of its tensors are maps, and which of them are the logits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from unetcam.engine.layout import Layout
from unetcam.errors import ModelError

#: Picks the logits (B, C, *spatial) from whatever a model returns.
Output = Callable[[Any], Tensor]

#: How a tensor was seen to hold its grid of pixels; None where that isn't known.
LayoutOf = Callable[[Tensor], "Layout | None"]

#: How a returned tensor holds one value per class and pixel: as a map (B, C, *spatial); with its
#: channels last; as tokens of a grid; as one channel without an axis of its own; as a classifier's
#: scores (B, C), which are a map of one pixel.
Form = Literal["map", "channels last", "tokens", "one channel", "scores"]

_TOLERANCE = 1e-3


@dataclass(frozen=True)
class OutputMap:
    """A tensor among those that a network returned that can be the logits.

    Attributes
    ----------
    position : int
        Its place among the returned tensors.
    form : str
    layout : Layout, optional
        Where the grid is, of tokens.
    channels : int
    pixels : int
    node : int, optional
        The traced node that it is.
    bounded : bool
        Whether all its values lie within 0 and 1.
    sums_to_one : bool
        Whether they sum to 1 over the channels.
    """

    position: int
    form: Form
    layout: Layout | None
    channels: int
    pixels: int
    node: int | None = None
    bounded: bool = False
    sums_to_one: bool = False

    def read(self, returned: Any, images: Tensor) -> Tensor:
        """This output (B, C, *spatial), of what the network returned in another run.

        Raises
        ------
        ModelError
            When the network returned something else than in the traced run.
        """
        tensors = list(returned_tensors(returned))
        if self.position >= len(tensors) or not _has_form(tensors[self.position], self, images):
            raise ModelError(
                f"The model returned {described(returned)} for images of shape "
                f"{tuple(images.shape)}, which is not what it returned before: pass "
                "output=callable to pick the logits from what it returns."
            )
        return self.as_map(tensors[self.position], images)

    def as_map(self, tensor: Tensor, images: Tensor) -> Tensor:
        """A tensor of this form as a map (B, C, *spatial)."""
        if self.form == "channels last":
            return tensor.movedim(-1, 1)
        if self.form == "one channel":
            return tensor.unsqueeze(1)
        if self.form == "scores":
            return one_pixel(tensor, images)
        return self.layout.to_map(tensor) if self.layout is not None else tensor


def output_maps(returned: Any, images: Tensor, layout_of: LayoutOf) -> list[OutputMap]:
    """The returned tensors that can be the logits; of the plainest form that there is.

    Parameters
    ----------
    returned : Any
        What the network returned for `images`.
    images : Tensor
        (B, C, *spatial).
    layout_of : callable
        How a tensor was seen to hold its grid of pixels; None where that isn't known.

    Raises
    ------
    ModelError
        When there is none.

    Examples
    --------
    >>> images, small = torch.zeros(2, 1, 8, 8), torch.zeros(2, 3, 4, 4)
    >>> maps = output_maps({"aux": small, "out": torch.zeros(2, 3, 8, 8)}, images, lambda x: None)
    >>> [(one.position, one.form, one.pixels) for one in maps]
    [(0, 'map', 16), (1, 'map', 64)]
    >>> [one.form for one in output_maps(torch.zeros(2, 10), images, lambda x: None)]
    ['scores']
    """
    tensors = list(returned_tensors(returned))
    maps = [
        output
        for position, tensor in enumerate(tensors)
        if (output := _output_map(position, tensor, images, layout_of(tensor))) is not None
    ]
    for forms in (("map", "channels last"), ("tokens",), ("one channel",), ("scores",)):
        fitting = [one for one in maps if one.form in forms]
        if fitting:
            return [_with_values(one, tensors[one.position], images) for one in fitting]
    hint = (
        "return the logits instead, without the argmax"
        if any(_is_indices(tensor, images) for tensor in tensors)
        else "pass output=callable to pick the logits from what it returns"
    )
    raise ModelError(
        f"The model returned {described(returned)}, which is no segmentation map "
        f"(B, C, *spatial) for images of shape {tuple(images.shape)}: {hint}."
    )


def _output_map(
    position: int, tensor: Tensor, images: Tensor, layout: Layout | None
) -> OutputMap | None:
    batch, dims = images.shape[0], images.ndim - 2
    if not tensor.is_floating_point() or tensor.ndim < 2 or tensor.shape[0] != batch:
        return None
    if not tensor[:1].numel():
        return None
    if tensor.ndim == dims + 2:
        if layout is not None and layout.axis == -1 and not layout.flat:
            pixels = tensor[0, ..., 0].numel()
            return OutputMap(position, "channels last", None, tensor.shape[-1], pixels)
        return OutputMap(position, "map", None, tensor.shape[1], tensor[0, 0].numel())
    if tensor.ndim == dims + 1 and tensor.shape[1:] == images.shape[2:]:
        return OutputMap(position, "one channel", None, 1, tensor[0].numel())
    if layout is not None and layout.flat and tensor.ndim == 3:
        grid = layout.to_map(tensor)
        return OutputMap(position, "tokens", layout, grid.shape[1], grid[0, 0].numel())
    if tensor.ndim == 2:
        return OutputMap(position, "scores", None, tensor.shape[1], 1)
    return None


def _has_form(tensor: Tensor, expected: OutputMap, images: Tensor) -> bool:
    output = _output_map(0, tensor, images, expected.layout)
    if output is None:
        return False
    channels = tensor.shape[-1] if expected.form == "channels last" else output.channels
    alike = output.form in (expected.form, "map") or expected.form == "map"
    return alike and channels == expected.channels


def _with_values(output: OutputMap, tensor: Tensor, images: Tensor) -> OutputMap:
    with torch.no_grad():
        values = output.as_map(tensor.detach(), images).float()
        bounded = bool((values >= -_TOLERANCE).all() & (values <= 1 + _TOLERANCE).all())
        sums = bounded and values.shape[1] > 1
        sums_to_one = sums and bool(((values.sum(dim=1) - 1).abs() < _TOLERANCE).all())
    return replace(output, bounded=bounded, sums_to_one=sums_to_one)


def _is_indices(tensor: Tensor, images: Tensor) -> bool:
    return not tensor.is_floating_point() and tensor.shape[-2:] == images.shape[-2:]


def one_pixel(scores: Tensor, images: Tensor) -> Tensor:
    """Scores (B, C) as a map of one pixel, (B, C, 1, 1) or (B, C, 1, 1, 1)."""
    return scores.view(*scores.shape, *[1] * (images.ndim - 2))


def returned_tensors(returned: Any) -> Iterator[Tensor]:
    """The tensors in what a model returned: a tensor, tuple, list, dict or output object."""
    if isinstance(returned, Tensor):
        yield returned
    elif isinstance(returned, Mapping):
        for value in returned.values():
            yield from returned_tensors(value)
    elif isinstance(returned, (tuple, list)):
        for value in returned:
            yield from returned_tensors(value)


def described(returned: Any) -> str:
    """What a model returned, for a message."""
    if isinstance(returned, Tensor):
        return f"a tensor of shape {tuple(returned.shape)} and type {returned.dtype}"
    shapes = [tuple(tensor.shape) for tensor in returned_tensors(returned)]
    return f"a {type(returned).__name__} with tensors of shapes {shapes}"
