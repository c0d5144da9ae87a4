"""Small questions about tensors that several files of the engine ask."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def at_least_single(tensor: Tensor) -> Tensor:
    """The tensor in single precision, or as it is in double."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def plain_images(images: Tensor, *, channels_last: bool = False) -> Tensor:
    """Images that can take part in a graph, whatever the caller's are."""
    # A subclass would turn what flows into views of itself; an inference tensor of the caller's
    # can't take part in a graph.
    images = images.as_subclass(Tensor)
    images = images.clone() if images.is_inference() else images.detach()
    if channels_last and images.ndim == 4:
        images = images.contiguous(memory_format=torch.channels_last)
    return images


def listed(names: Iterable[str]) -> str:
    """Names for a message.

    >>> listed(["up1", "up2"])
    "'up1', 'up2'"
    """
    return ", ".join(f"'{name}'" for name in names)
