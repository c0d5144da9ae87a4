"""What a model is given: one tensor of images, or several inputs of which one is the image."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_leaves, tree_map

from unetcam.errors import ModelError

#: Images, or a model's positional or keyword arguments.
Inputs: TypeAlias = "Tensor | Sequence[Any] | Mapping[str, Any]"


def image_of(inputs: Inputs) -> Tensor:
    """The image among a model's inputs: the tensor with the most pixels, the first of several.

    Parameters
    ----------
    inputs : Tensor, sequence or Mapping
        Images (B, C, *spatial), or a tuple or dict with such a tensor in it.

    Raises
    ------
    ModelError
        When there is none.

    Examples
    --------
    >>> import torch
    >>> image_of({"image": torch.zeros(2, 3, 8, 8), "age": torch.zeros(2, 1)}).shape
    torch.Size([2, 3, 8, 8])
    """
    if isinstance(inputs, Tensor):
        return inputs
    several = isinstance(inputs, (tuple, list, Mapping))
    inputs = plain(inputs)
    fitting = [tensor for tensor in _tensors(inputs) if tensor.ndim in (4, 5)] if several else []
    if not fitting:
        raise ModelError(
            f"Images must be a tensor (B, C, *spatial), or a tuple or dict of a model's inputs "
            f"with one in it, and this is a {type(inputs).__name__}: convert them with "
            "torch.from_numpy or torch.stack."
        )
    return max(fitting, key=lambda tensor: math.prod(tensor.shape[2:]))


def others_of(inputs: Inputs) -> list[Tensor]:
    """The tensors beside the image."""
    image = image_of(inputs)
    return [tensor for tensor in _tensors(inputs) if tensor is not image]


def changed(inputs: Inputs, change: Callable[[Tensor], Tensor]) -> Inputs:
    """The same inputs with each tensor changed."""
    result: Inputs = tree_map(lambda x: change(x) if isinstance(x, Tensor) else x, plain(inputs))
    return result


def plain(inputs: Any) -> Any:
    """The same inputs with a dict in the place of every other Mapping.

    >>> from collections import UserDict
    >>> plain(UserDict(image=1))
    {'image': 1}
    """
    if isinstance(inputs, Mapping):
        return {name: plain(value) for name, value in inputs.items()}
    return inputs


def first_of(inputs: Inputs) -> Inputs:
    """The first image, with its share of the other inputs, as copies."""
    count = len(image_of(inputs))

    def first(tensor: Tensor) -> Tensor:
        tensor = tensor.as_subclass(Tensor)
        per_image = tensor.ndim > 0 and tensor.shape[0] == count
        return (tensor[:1] if per_image else tensor).clone()

    return changed(inputs, first)


def copied(inputs: Inputs) -> Inputs:
    """The same inputs, each tensor of them a copy."""
    return changed(inputs, lambda tensor: tensor.as_subclass(Tensor).clone())


class Bound(nn.Module):
    """A model whose inputs are given but for the image."""

    def __init__(self, model: nn.Module, inputs: Inputs) -> None:
        super().__init__()
        self.model = model
        self._inputs, self._image = plain(inputs), image_of(inputs)

    def forward(self, image: Tensor) -> Any:
        # The model may change what it is given, and is given the same inputs again.
        given = changed(self._inputs, lambda x: image if x is self._image else x.clone())
        return self.model(**given) if isinstance(given, Mapping) else self.model(*given)


def bound(model: nn.Module, inputs: Inputs) -> nn.Module:
    """What maps the image alone to what the model returns for all inputs."""
    return model if isinstance(inputs, Tensor) else Bound(model, inputs)


def detached(inputs: Inputs) -> Inputs:
    """The same image, beside inputs that can take part in a graph and belong to none."""
    image = image_of(inputs)

    def plain(tensor: Tensor) -> Tensor:
        if tensor is image:
            return tensor
        tensor = tensor.as_subclass(Tensor)
        return tensor.clone() if tensor.is_inference() else tensor.detach()

    return changed(inputs, plain)


def check_images(model: nn.Module, images: Tensor) -> None:
    """Raise :class:`~unetcam.errors.ModelError` for images that the model can't be given."""
    if not images.is_floating_point():
        raise ModelError(
            f"Images must be floating point, and these are {images.dtype}: convert and normalise "
            "them as in training, as with images.float() / 255."
        )
    if images.ndim not in (4, 5) or 0 in images.shape:
        remedy = (
            "give at least one"
            if 0 in images.shape
            else "add the missing dimension with images[None]"
        )
        raise ModelError(
            "Images must be of shape (B, C, H, W) or (B, C, D, H, W), and these are of shape "
            f"{tuple(images.shape)}: {remedy}."
        )
    if _suits(model, images):
        return
    # One odd parameter (a complex filter, a counter, a temperature) tells nothing of the rest; a
    # placeholder on the meta device is brought to another when it is needed.
    weights = [
        p for p in model.parameters() if not is_lazy(p) and p.is_floating_point() and not p.is_meta
    ]
    if not weights:
        return
    devices = Counter({weight.device: 0 for weight in weights})
    types = Counter({weight.dtype: 0 for weight in weights})
    for weight in weights:
        devices[weight.device] += weight.numel()
        types[weight.dtype] += weight.numel()
    if images.device not in devices:
        device, _ = devices.most_common(1)[0]
        raise ModelError(
            f"The images are on {images.device}, but the model is on {device}: "
            f"move them with images.to('{device}')."
        )
    if images.dtype not in types and not torch.is_autocast_enabled(images.device.type):
        dtype, _ = types.most_common(1)[0]
        raise ModelError(
            f"The images are {images.dtype}, but the model is {dtype}: convert them "
            f"with images.to({dtype})."
        )


def _suits(model: nn.Module, images: Tensor) -> bool:
    """Whether some parameter is of the images' type and device; mostly the first one is."""
    device, dtype = images.device, images.dtype
    return any(p.device == device and p.dtype == dtype for p in model.parameters())


def _tensors(inputs: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(plain(inputs)) if isinstance(leaf, Tensor)]
