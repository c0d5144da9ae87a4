"""Taking a network out of what wraps it, and telling one that can't be hooked."""

from __future__ import annotations

import torch
from torch import nn

from unetcam.errors import ModelError


def check_supported(model: nn.Module) -> None:
    """Raise :class:`~unetcam.errors.ModelError` for a model that gives no gradients to hooks."""
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
