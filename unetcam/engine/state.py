"""Leave the model, the random state and the global flags as they were found."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterable, Iterator, MutableMapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
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
    modules = tuple(model.modules())
    _require_initialised(modules)
    with ExitStack() as stack:
        for lock in _locks_of(modules):
            stack.enter_context(lock)
        stack.callback(_undo_all, _save_flags())
        stack.callback(_undo_all, _save_random_state(modules))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        _save_buffers(modules, stack)
        _save_parameters(modules, stack, frozen=frozen)
        stack.callback(_undo_all, _save_training(modules))
        if parametrize._cache_enabled:  # weights that are computed inside have no gradient
            stack.callback(setattr, parametrize, "_cache", parametrize._cache)
            parametrize._cache = {}
        for module in modules:
            if module.training:
                module.training = False
        stack.enter_context(_uncompiled(modules))
        yield


def _require_initialised(modules: Iterable[nn.Module]) -> None:
    for module in modules:
        for held in (module._parameters, module._buffers):
            for name, value in held.items():
                if value is not None and is_lazy(value):
                    raise ModelError(
                        f"The model has lazy modules, and '{name}' of a {type(module).__name__} "
                        "is not initialised yet: run the model once, or load its weights, before "
                        "it is explained."
                    )


def _undo_all(undos: Iterable[Undo]) -> None:
    """Undo everything, also where something can't be undone: the first error flies at the end."""
    first: BaseException | None = None
    for undo in undos:
        try:
            undo()
        except BaseException as error:  # noqa: PERF203 -- an interrupt, too, waits for the rest
            first = first or error
    if first is not None:
        raise first


# -- threads ---------------------------------------------------------------------------------

_LOCKS: MutableMapping[nn.Module, Any] = WeakKeyDictionary()
_ADDING_LOCKS = Lock()


def _locks_of(modules: Iterable[nn.Module]) -> list[Any]:
    """A lock for every module that holds a state, always in the same order."""
    holding = [module for module in modules if module._parameters or module._buffers]
    with _ADDING_LOCKS:
        for module in holding:
            if module not in _LOCKS:
                _LOCKS[module] = RLock()
        return [_LOCKS[module] for module in sorted(holding, key=id)]


# -- the model -------------------------------------------------------------------------------


def _save_training(modules: Iterable[nn.Module]) -> Iterator[Undo]:
    # One by one: model.train() would wake a BatchNorm that was frozen on purpose.
    saved = [(module, module.training) for module in modules]
    return (
        partial(setattr, module, "training", training)
        for module, training in saved
        if module.training != training
    )


def _save_parameters(modules: Sequence[nn.Module], stack: ExitStack, *, frozen: bool) -> None:
    slots = [(module._parameters, dict(module._parameters)) for module in modules]
    every = {id(p): p for _, kept in slots for p in kept.values() if p is not None}
    saved = [(p, p.requires_grad, p.grad) for p in every.values()]
    stack.callback(
        _undo_all,
        (
            partial(_put_gradient_back, *one)
            for one in saved
            if one[0].requires_grad != one[1] or one[0].grad is not one[2]
        ),
    )
    stack.callback(_undo_all, (partial(_put_back, *one) for one in slots if _differ(*one)))
    inference = {key: p for key, p in every.items() if p.is_inference()}
    copies = {key: nn.Parameter(p.clone(), p.requires_grad) for key, p in inference.items()}
    for held, kept in slots if copies else ():
        held.update({name: copies.get(id(p), p) for name, p in kept.items()})
    for parameter in every.values() if frozen else ():
        inside = copies.get(id(parameter), parameter)
        if inside.requires_grad:
            inside.requires_grad_(False)


def _put_gradient_back(parameter: Tensor, required: bool, grad: Tensor | None) -> None:
    if parameter.requires_grad != required:
        inside = torch.inference_mode() if parameter.is_inference() else nullcontext()
        with inside:
            parameter.requires_grad_(required)
    if parameter.grad is not grad:
        parameter.grad = grad


def _differ(held: dict[str, Any], kept: dict[str, Any]) -> bool:
    return len(held) != len(kept) or any(held.get(name) is not kept[name] for name in kept)


def _put_back(held: dict[str, Any], kept: dict[str, Any]) -> None:
    """Let a module hold the tensors that it held, and no others."""
    held.clear()
    held.update(kept)


def _save_buffers(modules: Sequence[nn.Module], stack: ExitStack) -> None:
    slots = [(module._buffers, dict(module._buffers)) for module in modules]
    every = {id(b): b for _, kept in slots for b in kept.values() if b is not None}
    copies = {key: buffer.detach().clone() for key, buffer in every.items()}
    saved = [
        (buffer, copies[key], version_of(buffer))
        for key, buffer in every.items()
        if not buffer.is_inference()
    ]
    stack.callback(_restore, saved)
    stack.callback(_undo_all, (partial(_put_back, *one) for one in slots if _differ(*one)))
    if len(saved) < len(every):
        for held, kept in slots:
            held.update(
                {
                    name: copies[id(b)] if b is not None and b.is_inference() else b
                    for name, b in kept.items()
                }
            )


@torch.no_grad()
def _restore(saved: Sequence[tuple[Tensor, Tensor, int | None]]) -> None:
    """Give buffers their values back, where these are others; a GPU waits once."""
    comparable = [
        index
        for index, (buffer, copy, _) in enumerate(saved)
        if buffer.shape == copy.shape and buffer.layout == torch.strided and not buffer.is_meta
    ]
    on_gpu = [index for index in comparable if saved[index][0].is_cuda]
    alike = dict.fromkeys(comparable, False)
    if on_gpu:
        same = torch.stack([(saved[index][0] == saved[index][1]).all() for index in on_gpu])
        alike.update(zip(on_gpu, same.tolist(), strict=True))
    changed = []
    for index, (buffer, copy, version) in enumerate(saved):
        if index not in alike:
            if buffer.shape != copy.shape or version_of(buffer) != version:
                changed.append((buffer, copy))
        elif not alike[index] and not _is_alike(buffer, copy):
            changed.append((buffer, copy))
    _undo_all(partial(_fill, *one) for one in changed)


def _is_alike(buffer: Tensor, copy: Tensor) -> bool:
    if torch.equal(buffer, copy):
        return True
    return bool(((buffer == copy) | ((buffer != buffer) & (copy != copy))).all())


@torch.no_grad()
def _fill(buffer: Tensor, copy: Tensor) -> None:
    if buffer.shape != copy.shape:
        buffer.resize_(copy.shape)
    buffer.copy_(copy)


# -- what torch.compile made -----------------------------------------------------------------

_EAGER_LOCK = Lock()
_EAGER: dict[str, Any] = {"depth": 0, "stance": None}


@contextmanager
def _uncompiled(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Let compiled code run as it was written: what is compiled calls no new hooks."""
    # A module's own compiled call would run in the place of one that a replay has put there.
    compiled = [
        (module, module.__dict__["_compiled_call_impl"])
        for module in modules
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


def _save_random_state(modules: Iterable[nn.Module]) -> list[Undo]:
    parameters = (p for module in modules for p in module._parameters.values() if p is not None)
    devices = {parameter.device for parameter in parameters if parameter.is_cuda}
    undos: list[Undo] = [
        partial(torch.set_rng_state, torch.get_rng_state()),
        partial(random.setstate, random.getstate()),
        partial(np.random.set_state, np.random.get_state()),  # noqa: NPY002
    ]
    return undos + [
        partial(torch.cuda.set_rng_state, torch.cuda.get_rng_state(device), device)
        for device in devices
    ]


def _save_flags() -> list[Undo]:
    cudnn = torch.backends.cudnn
    return [
        *(partial(setattr, cudnn, name, getattr(cudnn, name)) for name in _CUDNN_FLAGS),
        partial(torch.set_default_dtype, torch.get_default_dtype()),
        partial(torch.set_float32_matmul_precision, torch.get_float32_matmul_precision()),
        partial(_set_determinism, *_determinism()),
    ]


def _determinism() -> tuple[bool, bool]:
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    return torch.are_deterministic_algorithms_enabled(), warns


def _set_determinism(exact: bool, warns: bool) -> None:
    # Only where it was changed: the call imports torch's compiler, which takes over a second.
    if _determinism() != (exact, warns):
        torch.use_deterministic_algorithms(exact, warn_only=warns)
