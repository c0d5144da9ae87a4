"""Which of the tensors that a network returns are its logits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor

from unetcam.errors import ModelError

#: Picks the logits (B, C, *spatial) from whatever a model returns.
Output = Callable[[Any], Tensor]


def pick_logits(returned: Any, images: Tensor) -> Tensor:
    """The logits among what a model returned for `images`.

    A tensor is taken as it is. Of a tuple, a list, a dict or an output object, the tensor with as
    many dimensions as the images and the most pixels is taken, the first where several are alike:
    under deep supervision that is the full-resolution head.

    Parameters
    ----------
    returned : Any
        What the model returned.
    images : Tensor
        (B, C, *spatial), what the model was given.

    Returns
    -------
    Tensor
        (B, C, *spatial).

    Raises
    ------
    ModelError
        When there is no such tensor.
    """
    fitting = [tensor for tensor in _tensors(returned) if is_map(tensor, images)]
    if not fitting:
        raise ModelError(
            f"The model returned {_described(returned)}, which is no segmentation map "
            f"(B, C, *spatial) for images of shape {tuple(images.shape)}: pass "
            "output=callable to pick the logits from what it returns."
        )
    return max(fitting, key=lambda tensor: tensor[0, 0].numel())


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
