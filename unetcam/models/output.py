"""Which of the tensors that a network returns are its logits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor

from unetcam.engine.layout import UnclearError
from unetcam.errors import ModelError

#: Picks the logits (B, C, *spatial) from whatever a model returns.
Output = Callable[[Any], Tensor]


def pick_logits(returned: Any, images: Tensor, choice: int | None = 0) -> Tensor:
    """The logits among what a model returned for `images`.

    A tensor is taken as it is. Of a tuple, a list, a dict or an output object, the tensor with as
    many dimensions as the images and the most pixels is taken: under deep supervision that is the
    full-resolution head. Where there are only scores (B, C), as a classifier gives them, they are
    a map of one pixel.

    Parameters
    ----------
    returned : Any
        What the model returned.
    images : Tensor
        (B, C, *spatial), what the model was given.
    choice : int, optional
        Which one to take where several are as large, as a traced run tells; see
        :class:`~unetcam.models.table.LayerTable`. None takes none.

    Returns
    -------
    Tensor
        (B, C, *spatial).

    Raises
    ------
    ModelError
        When there is no such tensor.
    UnclearError
        When there are several, and no choice.

    Examples
    --------
    >>> import torch
    >>> images, small = torch.zeros(2, 1, 8, 8), torch.zeros(2, 3, 4, 4)
    >>> pick_logits({"aux": small, "out": torch.zeros(2, 3, 8, 8)}, images).shape
    torch.Size([2, 3, 8, 8])
    >>> pick_logits(torch.zeros(2, 10), images).shape
    torch.Size([2, 10, 1, 1])
    """
    heads = pick_heads(returned, images)
    if choice is None and len(heads) > 1:
        raise UnclearError
    return heads[choice or 0]


def pick_heads(returned: Any, images: Tensor) -> list[Tensor]:
    """The tensors that can be the logits: the largest maps, or else what scores there are."""
    tensors = list(_tensors(returned))
    maps = [tensor for tensor in tensors if is_map(tensor, images)]
    most = max((tensor[0, 0].numel() for tensor in maps), default=0)
    heads = [tensor for tensor in maps if tensor[0, 0].numel() == most]
    scores = [tensor for tensor in tensors if is_scores(tensor, images)]
    if not heads and not scores:
        raise ModelError(
            f"The model returned {_described(returned)}, which is no segmentation map "
            f"(B, C, *spatial) for images of shape {tuple(images.shape)}: pass "
            "output=callable to pick the logits from what it returns."
        )
    return heads or [one_pixel(tensor, images) for tensor in scores]


def is_scores(tensor: Tensor, images: Tensor) -> bool:
    """Whether a tensor can be a classifier's scores (B, C)."""
    shaped = tensor.ndim == 2 and tensor.is_floating_point() and tensor[:1].numel() > 0
    return shaped and tensor.shape[0] == images.shape[0]


def one_pixel(scores: Tensor, images: Tensor) -> Tensor:
    """Scores (B, C) as a map of one pixel, (B, C, 1, 1) or (B, C, 1, 1, 1)."""
    return scores.view(*scores.shape, *[1] * (images.ndim - 2))


def is_map(tensor: Tensor, images: Tensor) -> bool:
    """Whether a tensor can be the logits of `images`."""
    return (
        tensor.ndim == images.ndim
        and tensor.is_floating_point()
        and tensor.shape[0] == images.shape[0]
        and tensor[:1].numel() > 0
    )


def _tensors(returned: Any) -> Iterator[Tensor]:
    if isinstance(returned, Tensor):
        yield returned
    elif isinstance(returned, Mapping):
        for value in returned.values():
            yield from _tensors(value)
    elif isinstance(returned, (tuple, list)):
        for value in returned:
            yield from _tensors(value)


def _described(returned: Any) -> str:
    if isinstance(returned, Tensor):
        return f"a tensor of shape {tuple(returned.shape)} and type {returned.dtype}"
    shapes = [tuple(tensor.shape) for tensor in _tensors(returned)]
    return f"a {type(returned).__name__} with tensors of shapes {shapes}"
