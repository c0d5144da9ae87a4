"""Which networks are supported: out of what wraps them, and what is said of one that fails."""

from __future__ import annotations

import torch
from torch import nn

from unetcam.errors import ModelError, reason
from unetcam.models.io import Inputs, image_of


def check_supported(model: nn.Module) -> None:
    """Raise :class:`~unetcam.errors.ModelError` for a model that gives no gradients to hooks."""
    if _is_exported(model):
        raise ModelError(
            "The model can't be explained because it is a program that torch.export made, whose "
            "layers are no modules: load the original PyTorch module with the same weights."
        )
    if not isinstance(model, nn.Module):
        raise ModelError(
            f"A model must be a torch.nn.Module, and this is a {type(model).__name__}: pass the "
            "network itself."
        )
    for name, module in model.named_modules():
        where = f"its module '{name}'" if name else "it"
        if isinstance(module, torch.jit.ScriptModule):
            raise ModelError(
                f"The model can't be explained because {where} is TorchScript, whose layers take "
                "no hooks: load the original PyTorch module with the same weights."
            )
        if "quantized" in type(module).__module__.split("."):
            raise ModelError(
                f"The model can't be explained because {where} is quantised, which has no "
                "gradients: load the floating-point network with the same weights."
            )


def unwrapped(model: nn.Module) -> nn.Module:
    """Take a network out of what only matters for training speed and keeps hooks from firing.

    Parameters
    ----------
    model : nn.Module
        Any network; one in ``DataParallel``, ``DistributedDataParallel`` or ``torch.compile``'s
        wrapper, or in several of them, is taken out.

    Examples
    --------
    >>> network = nn.Conv2d(1, 2, 3)
    >>> unwrapped(nn.DataParallel(network)) is network
    True
    """
    while True:
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            inner = model.module
        else:
            inner = getattr(model, "_orig_mod", None)  # torch.compile's wrapper has no public name
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def failure(module: nn.Module, inputs: Inputs, error: Exception) -> ModelError:
    """The error of a forward that fails on some images, in one sentence."""
    shape = tuple(image_of(inputs).shape)
    first = first_convolution(module)
    channels = None if first is None else first.in_channels
    if channels is not None and channels != shape[1]:
        last = " (the channels seem to come last)" if shape[-1] == channels else ""
        return ModelError(
            f"The model's first convolution takes images of {channels} channels, and these, "
            f"of shape {shape}, have {shape[1]}{last}: give images (B, C, *spatial) as in "
            "training, with channels= where the model is loaded.",
            option="channels",
        )
    if any(parameter.is_meta for parameter in module.parameters()):
        return ModelError(
            "The model's weights are placeholders on the meta device, which hold no values "
            f"({reason(error)}): load the weights before it is explained."
        )
    return ModelError(
        f"The model's forward fails on images of shape {shape} ({reason(error)}): give what "
        "it takes, with channels= and size= where the model is loaded, and batch_size= where it "
        "takes one number of images alone.",
        option=("channels", "size", "batch_size"),
    )


def _is_exported(model: object) -> bool:
    """Whether it is a program that torch.export made, or a module made of one."""
    return any(base.__module__.startswith("torch.export") for base in type(model).__mro__)


_CONVOLUTIONS = (nn.Conv2d, nn.Conv3d)


def first_convolution(module: nn.Module) -> nn.Conv2d | nn.Conv3d | None:
    """The first convolution, which tells the images' channels; None without one."""
    return next((one for one in module.modules() if isinstance(one, _CONVOLUTIONS)), None)
