"""Leave the model, the random state and the global flags as they were found."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import ExitStack, contextmanager
from functools import partial
from threading import Lock, RLock
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from unetcam.engine.tensors import version_of
from unetcam.errors import ModelError

_CUDNN_FLAGS = ("enabled", "benchmark", "deterministic", "allow_tf32")

Undo = Callable[[], None]


@contextmanager
def preserved(model: nn.Module, *, frozen: bool = True) -> Iterator[None]:
    """Put `model` into evaluation, free of parameter gradients, and undo everything at the end.

    Inside, each module evaluates (dropout off, batch statistics frozen) and no parameter requires
    a gradient, so that a forward builds no graph; what ``torch.compile`` made runs as it was
    written. At the end, also after an exception, these are as they were: every module's own
    ``training``, every parameter and its ``requires_grad`` and ``.grad``, the buffers by value and
    shape, the random state of torch, NumPy and Python, and torch's global flags. Where one of
    them can't be put back, the others are all the same.

    Grad mode is on inside and inference mode off, whatever the caller has. Parameters and buffers
    that were made under inference mode stand in no graph, and copies take their place meanwhile.
    Another thread that asks for the same model, or for one that shares a part of it, waits.

    Parameters
    ----------
    model : nn.Module
    frozen : bool
        Whether the parameters are freed of gradients inside.

    Raises
    ------
    ModelError
        For lazy modules that have not seen an input yet.
    """
    _require_initialised(model)
    with ExitStack() as stack:
        for lock in _locks_of(model):
            stack.enter_context(lock)
        for save in (_save_flags, _save_random_state):
            for undo in save(model):
                stack.callback(undo)
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for save in (_save_buffers, _save_parameters, _save_training, _save_cached):
            for undo in save(model):
                stack.callback(undo)
        for module in model.modules():
            module.training = False
        if frozen:
            for parameter in model.parameters():
                if parameter.requires_grad:
                    _require_gradient(parameter, False)
        stack.enter_context(_uncompiled(model))
        yield


def _require_initialised(model: nn.Module) -> None:
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        if is_lazy(value):
            raise ModelError(
                f"The model has lazy modules, and '{name}' is not initialised yet: run the model "
                "once, or load its weights, before it is explained."
            )


# -- threads ---------------------------------------------------------------------------------

_LOCKS: MutableMapping[nn.Module, Any] = WeakKeyDictionary()
_ADDING_LOCKS = Lock()


def _locks_of(model: nn.Module) -> list[Any]:
    """A lock for every module that holds a state, always in the same order."""
    holding = [module for module in model.modules() if module._parameters or module._buffers]
    with _ADDING_LOCKS:
        return [_LOCKS.setdefault(module, RLock()) for module in sorted(holding, key=id)]


# -- the model -------------------------------------------------------------------------------


def _save_training(model: nn.Module) -> Iterator[Undo]:
    # One by one: model.train() would wake a BatchNorm that was frozen on purpose.
    for module in model.modules():
        yield partial(_set_training, module, module.training)


def _set_training(module: nn.Module, training: bool) -> None:
    if module.training != training:
        module.training = training


def _save_parameters(model: nn.Module) -> Iterator[Undo]:
    copies: dict[int, nn.Parameter] = {}
    for module in model.modules():
        kept = dict(module._parameters)
        yield partial(_put_back, module._parameters, kept)
        for name, parameter in kept.items():
            if parameter is None:
                continue
            yield partial(_put_gradient_back, parameter, parameter.requires_grad, parameter.grad)
            if parameter.is_inference():
                copied = copies.get(id(parameter))
                if copied is None:
                    copied = nn.Parameter(parameter.clone(), parameter.requires_grad)
                module._parameters[name] = copies[id(parameter)] = copied


def _put_gradient_back(parameter: Tensor, required: bool, grad: Tensor | None) -> None:
    if parameter.requires_grad != required:
        _require_gradient(parameter, required)
    if parameter.grad is not grad:
        parameter.grad = grad


def _require_gradient(parameter: Tensor, required: bool) -> None:
    with torch.inference_mode(parameter.is_inference()):
        parameter.requires_grad_(required)


def _save_buffers(model: nn.Module) -> Iterator[Undo]:
    saved: list[tuple[Tensor, Tensor, int | None]] = []
    seen: set[int] = set()
    yield partial(_restore, saved)
    for module in model.modules():
        kept = dict(module._buffers)
        yield partial(_put_back, module._buffers, kept)
        for name, buffer in kept.items():
            if buffer is None:
                continue
            copy = buffer.detach().clone()
            if buffer.is_inference():
                module._buffers[name] = copy
            elif id(buffer) not in seen:
                seen.add(id(buffer))
                saved.append((buffer, copy, version_of(buffer)))


def _put_back(slots: dict[str, Any], kept: dict[str, Any]) -> None:
    """Let a module hold the tensors that it held, and no others."""
    if any(slots.get(name) is not value for name, value in kept.items()) or len(slots) > len(kept):
        slots.clear()
        slots.update(kept)


@torch.no_grad()
def _restore(saved: list[tuple[Tensor, Tensor, int | None]]) -> None:
    """Give buffers their values back, where these are others; each device waits once."""
    compared: dict[torch.device, list[tuple[int, Tensor]]] = {}
    changed: list[int] = []
    for index, (buffer, copy, version) in enumerate(saved):
        if buffer.shape != copy.shape or buffer.layout != torch.strided or buffer.is_quantized:
            changed += [index] if buffer.shape != copy.shape or buffer._version != version else []
        elif buffer.device.type != "meta" and buffer.numel():
            alike = (buffer == copy) | ((buffer != buffer) & (copy != copy))
            compared.setdefault(buffer.device, []).append((index, alike.all()))
    for rows in compared.values():
        unchanged = torch.stack([alike for _, alike in rows]).tolist()
        changed += [index for (index, _), same in zip(rows, unchanged, strict=True) if not same]
    for index in changed:
        buffer, copy, _ = saved[index]
        if buffer.shape != copy.shape:
            buffer.resize_(copy.shape)
        buffer.copy_(copy)


def _save_cached(model: nn.Module) -> Iterator[Undo]:
    """Of ``parametrize.cached()``: weights that are computed inside have no gradient."""
    if parametrize._cache_enabled:
        yield partial(setattr, parametrize, "_cache", parametrize._cache)
        parametrize._cache = {}


# -- what torch.compile made -----------------------------------------------------------------

_EAGER_LOCK = Lock()
_EAGER: dict[str, Any] = {"depth": 0, "stance": None}


@contextmanager
def _uncompiled(model: nn.Module) -> Iterator[None]:
    """Let compiled code run as it was written: what is compiled calls no new hooks."""
    # A module's own compiled call would run in the place of one that a replay has put there.
    compiled = [
        (module, module.__dict__["_compiled_call_impl"])
        for module in model.modules()
        if module.__dict__.get("_compiled_call_impl") is not None
    ]
    for module, _ in compiled:
        module.__dict__["_compiled_call_impl"] = None
    try:
        with _eager():
            yield
    finally:
        for module, call in compiled:
            module.__dict__["_compiled_call_impl"] = call


@contextmanager
def _eager() -> Iterator[None]:
    """Inside, torch runs what it compiled as it was written; threads may overlap."""
    if "torch._dynamo" not in sys.modules:  # nothing is compiled
        yield
        return
    with _EAGER_LOCK:
        if _EAGER["depth"] == 0:
            _EAGER["stance"] = torch.compiler.set_stance("force_eager")
        _EAGER["depth"] += 1
    try:
        yield
    finally:
        with _EAGER_LOCK:
            _EAGER["depth"] -= 1
            if _EAGER["depth"] == 0:
                _EAGER.pop("stance").__exit__(None, None, None)


# -- what is global --------------------------------------------------------------------------


def _save_random_state(model: nn.Module) -> Iterator[Undo]:
    for device in {p.device for p in model.parameters() if p.device.type == "cuda"}:
        state = torch.cuda.get_rng_state(device)
        yield partial(torch.cuda.set_rng_state, state, device)
    cpu, python, numpy = torch.get_rng_state(), random.getstate(), np.random.get_state()  # noqa: NPY002
    yield partial(torch.set_rng_state, cpu)
    yield partial(random.setstate, python)
    yield partial(np.random.set_state, numpy)


def _save_flags(model: nn.Module) -> Iterator[Undo]:
    cudnn = torch.backends.cudnn
    flags = {name: getattr(cudnn, name) for name in _CUDNN_FLAGS}
    for name, kept in flags.items():
        yield partial(setattr, cudnn, name, kept)
    dtype, precision = torch.get_default_dtype(), torch.get_float32_matmul_precision()
    yield partial(torch.set_default_dtype, dtype)
    yield partial(torch.set_float32_matmul_precision, precision)
    exact = torch.are_deterministic_algorithms_enabled()
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    yield partial(torch.use_deterministic_algorithms, exact, warn_only=warns)
