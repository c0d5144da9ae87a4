"""Small questions about tensors that several files of the engine ask."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping
from typing import Generic, TypeVar

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from unetcam.errors import NumericalError


def at_least_single(tensor: Tensor) -> Tensor:
    """The tensor in single precision, or as it is in double."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def plain_images(images: Tensor) -> Tensor:
    """Images that can take part in a graph, whatever the caller's are."""
    # A subclass would turn what flows into views of itself; an inference tensor of the caller's
    # can't take part in a graph.
    images = images.as_subclass(Tensor)
    return images.clone() if images.is_inference() else images.detach()


def copied(images: Tensor, *, channels_last: bool = False) -> Tensor:
    """What a forward is given in the place of images: a copy that it may change."""
    last = channels_last and images.ndim == 4
    return images.clone(memory_format=torch.channels_last if last else torch.preserve_format)


def version_of(tensor: Tensor) -> int | None:
    """How often the tensor was changed in place; None for inference tensors, which don't count."""
    return None if tensor.is_inference() else tensor._version


def listed(names: Iterable[str]) -> str:
    """Names for a message.

    >>> listed(["up1", "up2"])
    "'up1', 'up2'"
    """
    return ", ".join(f"'{name}'" for name in names)


def undefined_to_nan(maps: Tensor, defined: Tensor) -> Tensor:
    """Maps (B, T or 1, *spatial) with NaN for the targets that don't exist in the image."""
    absent = ~defined.view(*defined.shape, *[1] * (maps.ndim - 2))
    return maps.masked_fill(absent, torch.nan)


@torch.no_grad()
def require_finite(
    images: Tensor,
    activations: Mapping[str, Tensor],
    logits: Tensor,
    statistics: Mapping[str, Tensor] | None = None,
) -> None:
    """Name the first tensor, from images to gradients, that is not finite; the device waits once.

    Raises
    ------
    NumericalError
    """
    sources = [("the input images", images)]
    sources += [(f"the activation of layer '{name}'", value) for name, value in activations.items()]
    sources += [("the logits", logits)]
    gradients = (statistics or {}).items()
    sources += [(f"the gradient at layer '{name}'", value) for name, value in gradients]
    finite = torch.stack([torch.isfinite(value).all() for _, value in sources]).tolist()
    for (source, _), fine in zip(sources, finite, strict=True):
        if not fine:
            raise NumericalError(
                f"NaN or infinity in {source}: check the preprocessing and the checkpoint, or run "
                "without half precision."
            )


T = TypeVar("T")


class TensorTags(Generic[T]):
    """Tags on tensors that lapse when the tensor, or one it was made of, is changed in place.

    A tag lives no longer than its tensor.

    Examples
    --------
    >>> import torch
    >>> tags, x = TensorTags[str](), torch.zeros(2)
    >>> y = x + 1
    >>> tags.put(y, "made of x", x)
    >>> tags.get(y)
    'made of x'
    >>> _ = x.add_(1)
    >>> tags.get(y) is None
    True
    """

    def __init__(self) -> None:
        self._kept: MutableMapping[Tensor, tuple[T, tuple[Tensor, ...], tuple[int | None, ...]]]
        self._kept = WeakTensorKeyDictionary()

    def put(self, tensor: Tensor, tag: T, *sources: Tensor) -> None:
        """Tag `tensor`, which was made of `sources`."""
        self._kept[tensor] = (tag, sources, _versions(tensor, *sources))

    def get(self, tensor: Tensor) -> T | None:
        """The tag on `tensor`; None without one, or when it has lapsed."""
        if tensor not in self._kept:
            return None
        tag, sources, versions = self._kept[tensor]
        return tag if versions == _versions(tensor, *sources) else None

    def __len__(self) -> int:
        return len(self._kept)


def _versions(*tensors: Tensor) -> tuple[int | None, ...]:
    return tuple(version_of(tensor) for tensor in tensors)
