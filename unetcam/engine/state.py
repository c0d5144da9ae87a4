"""Leave the model, the random state and the global flags as they were found."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from unetcam.engine.tensors import version_of


@contextmanager
def preserved(model: nn.Module, *, frozen: bool = True) -> Iterator[None]:
    """Put `model` into evaluation, free of parameter gradients, and undo everything at the end.

    Inside, each module evaluates (dropout off, batch statistics frozen) and no parameter requires
    a gradient, so that a forward builds no graph; what ``torch.compile`` made runs as it was
    written. At the end, also after an exception, these are as they were: every module's own
    ``training``, every parameter's ``requires_grad`` and ``.grad``, the buffers, the random state
    of torch, NumPy and Python, and torch's global flags.
    Grad mode is on inside and inference mode off, whatever the caller has.

    Parameters
    ----------
    model : nn.Module
    frozen : bool
        Whether the parameters are freed of gradients inside.
    """
    restore = [
        *_save_flags(),
        _save_random_state(model),
        _save_buffers(model),
        _save_training(model),
        _save_parameters(model),
        _save_compiled(model),
    ]
    try:
        with torch.inference_mode(False), torch.enable_grad():
            for module in model.modules():
                module.training = False
            for parameter in model.parameters() if frozen else ():
                if parameter.requires_grad:
                    parameter.requires_grad_(False)
            _uncompile(model)
            yield
    finally:
        for undo in reversed(restore):
            undo()


def _save_training(model: nn.Module) -> Callable[[], None]:
    # One by one: model.train() would wake a BatchNorm that was frozen on purpose.
    found = [(module, module.training) for module in model.modules()]

    def undo() -> None:
        for module, training in found:
            module.training = training

    return undo


def _save_parameters(model: nn.Module) -> Callable[[], None]:
    found = [(p, p.requires_grad, p.grad) for p in model.parameters()]

    def undo() -> None:
        for parameter, requires_grad, grad in found:
            if parameter.requires_grad != requires_grad:
                parameter.requires_grad_(requires_grad)
            if parameter.grad is not grad:
                parameter.grad = grad

    return undo


def _save_compiled(model: nn.Module) -> Callable[[], None]:
    found = [
        (module, name, module.__dict__[name])
        for module in model.modules()
        for name in ("_compiled_call_impl", "forward")
        if name in module.__dict__
    ]

    def undo() -> None:
        for module, name, value in found:
            module.__dict__[name] = value

    return undo


def _uncompile(model: nn.Module) -> None:
    """Let compiled modules run as they were written: what is compiled calls no new hooks."""
    for module in model.modules():
        if module.__dict__.get("_compiled_call_impl") is not None:
            module.__dict__["_compiled_call_impl"] = None
        inner = module._modules.get("_orig_mod")
        if inner is not None:
            module.__dict__["forward"] = inner.__call__


def _save_buffers(model: nn.Module) -> Callable[[], None]:
    found = [
        (module, name, buffer, buffer.detach().clone(), version_of(buffer))
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]

    def undo() -> None:
        for module, name, buffer, copy, version in found:
            if version is None or buffer._version != version:
                with torch.inference_mode(buffer.is_inference()), torch.no_grad():
                    buffer.copy_(copy)
            module._buffers[name] = buffer

    return undo


def _save_random_state(model: nn.Module) -> Callable[[], None]:
    devices = {p.device for p in model.parameters() if p.device.type == "cuda"}
    cuda = [(device, torch.cuda.get_rng_state(device)) for device in devices]
    cpu, python, numpy = torch.get_rng_state(), random.getstate(), np.random.get_state()  # noqa: NPY002

    def undo() -> None:
        torch.set_rng_state(cpu)
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        for device, state in cuda:
            torch.cuda.set_rng_state(state, device)

    return undo


def _save_flags() -> list[Callable[[], None]]:
    def attribute(owner: Any, name: str) -> Callable[[], None]:
        found = getattr(owner, name)
        return lambda: setattr(owner, name, found)

    dtype, precision = torch.get_default_dtype(), torch.get_float32_matmul_precision()
    return [
        attribute(torch.backends.cudnn, "benchmark"),
        attribute(torch.backends.cudnn, "deterministic"),
        lambda: torch.set_default_dtype(dtype),
        lambda: torch.set_float32_matmul_precision(precision),
    ]
