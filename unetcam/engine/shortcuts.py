"""Convolutions that compute no more of their backward than the maps need.

Three things are left out of a tail's backward, none of which changes a map:

- the gradient towards skips: a convolution over a concatenation is the sum of two convolutions,
  and only the branch that comes of a tapped layer is asked for its gradient;
- at the deepest layer, for a method that needs its gradient's spatial mean only, the gradient
  itself: its sum is a small product of the weights with sums of the outgoing gradient;
- at the head, the classes that a target does not touch.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

_CONVOLUTIONS = {F.conv2d: 2, F.conv3d: 3}
_PARAMETERS = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
#: What keeps channels apart and, going backward, each channel's spatial sum.
_KEEPS_SUMS = {F.interpolate, torch.clone, Tensor.clone, Tensor.contiguous}


@dataclass(frozen=True)
class _Part:
    """A slice of a convolution's input channels."""

    tensor: Tensor
    start: int
    only_sum: bool


@dataclass(eq=False)
class _Plan:
    """What a convolution's backward has to know."""

    weight: Tensor
    stride: list[int]
    padding: list[int]
    dilation: list[int]
    shapes: list[torch.Size] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    only_sums: list[bool] = field(default_factory=list)
    classes: slice = field(default_factory=lambda: slice(None))


@dataclass(frozen=True)
class _Cat:
    """What a concatenation was made of, and the versions of all when it was."""

    version: int
    tensors: tuple[Tensor, ...]
    versions: tuple[int, ...]

    def holds(self, result: Tensor) -> bool:
        """Whether nothing was changed in place since."""
        now = tuple(tensor._version for tensor in self.tensors)
        return result._version == self.version and now == self.versions


class Shortcuts(TorchFunctionMode):
    """Inside, the convolutions of a forward take the shortcuts.

    Parameters
    ----------
    sums_suffice : bool
        Whether the method reduces a gradient by its spatial mean.
    """

    def __init__(self, *, sums_suffice: bool) -> None:
        super().__init__()
        self._sums_suffice = sums_suffice
        self._parts: MutableMapping[Tensor, _Cat] = WeakTensorKeyDictionary()
        self._summable: MutableMapping[Tensor, int] = WeakTensorKeyDictionary()
        self._origins: MutableMapping[Tensor, _Plan] = WeakTensorKeyDictionary()

    def leaf(self, tensor: Tensor) -> None:
        """Note what flows on from a leaf: only its gradient's reduction will be asked for."""
        if self._sums_suffice:
            self._summable[tensor] = tensor._version

    def head(self, logits: Tensor) -> Callable[[int | None], None]:
        """How to tell the convolution that makes the logits which channel a target touches."""
        plan = self._origins.get(logits)

        def restrict(channel: int | None) -> None:
            if plan is not None:
                plan.classes = slice(None) if channel is None else slice(channel, channel + 1)

        return restrict

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in _CONVOLUTIONS:
            bound = dict(zip(_PARAMETERS, args, strict=False)) | kwargs
            if self._applies(bound):
                return self._convolve(func, bound)
        result = func(*args, **kwargs)
        if func is torch.cat:
            self._note_cat(result, *args, **kwargs)
        elif func in _KEEPS_SUMS and args and isinstance(result, Tensor):
            source = args[0]
            if self._is_summable(source):
                self._summable[result] = result._version
            if source in self._origins and func is F.interpolate:
                self._origins[result] = self._origins[source]
        return result

    # -- what came of what -------------------------------------------------------------------

    def _is_summable(self, tensor: Tensor) -> bool:
        return self._summable.get(tensor) == tensor._version

    def _note_cat(self, result: Tensor, tensors: Sequence[Tensor], dim: int = 0, **_: Any) -> None:
        if dim not in (1, 1 - result.ndim):
            return
        versions = tuple(tensor._version for tensor in tensors)
        self._parts[result] = _Cat(result._version, tuple(tensors), versions)

    def _needed(self, whole: Tensor) -> list[_Part]:
        cat = self._parts.get(whole)
        tensors = cat.tensors if cat is not None and cat.holds(whole) else (whole,)
        starts = itertools.accumulate((tensor.shape[1] for tensor in tensors), initial=0)
        return [
            _Part(tensor, start, self._is_summable(tensor))
            for tensor, start in zip(tensors, starts, strict=False)
            if tensor.requires_grad
        ]

    # -- the convolutions --------------------------------------------------------------------

    def _applies(self, bound: dict[str, Any]) -> bool:
        return (
            bound["input"].requires_grad
            and torch.is_grad_enabled()
            and bound["input"].ndim == bound["weight"].ndim
            and bound.get("groups", 1) == 1
            and not isinstance(bound.get("padding", 0), str)
            and not bound["weight"].requires_grad
            and not _is_checkpointed()
        )

    def _convolve(self, func: Callable[..., Tensor], bound: dict[str, Any]) -> Tensor:
        whole = bound["input"]
        parts = self._needed(whole)
        dims = _CONVOLUTIONS[func]
        plan = _Plan(
            bound["weight"],
            _each(bound.get("stride", 1), dims),
            _each(bound.get("padding", 0), dims),
            _each(bound.get("dilation", 1), dims),
            [part.tensor.shape for part in parts],
            [part.start for part in parts],
            [part.only_sum for part in parts],
        )
        bound = {**bound, "input": whole.detach()}
        result: Tensor = _Convolution.apply(func, bound, plan, *[part.tensor for part in parts])
        self._origins[result] = plan
        return result


class _Convolution(torch.autograd.Function):
    """A convolution that is asked for the gradients of some of its input channels."""

    @staticmethod
    def forward(
        ctx: Any, func: Callable[..., Tensor], bound: dict[str, Any], plan: _Plan, *parts: Tensor
    ) -> Tensor:
        ctx.plan = plan
        ctx.dtypes = [part.dtype for part in parts]
        return func(**bound)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        plan: _Plan = ctx.plan
        grad = grads[0][:, plan.classes]
        weight = plan.weight[plan.classes].to(grad.dtype)
        results: list[Tensor | None] = [None, None, None]
        rows = zip(plan.shapes, plan.starts, plan.only_sums, ctx.dtypes, strict=True)
        for shape, start, only_sum, dtype in rows:
            part = weight[:, start : start + shape[1]]
            backward = _summed if only_sum else _whole
            results.append(backward(grad, part, shape, plan).to(dtype))
        return tuple(results)


def _whole(grad: Tensor, weight: Tensor, shape: torch.Size, plan: _Plan) -> Tensor:
    """The gradient towards an input of `shape`."""
    unread = grad.new_empty(1).expand(shape)
    result: Tensor = torch.ops.aten.convolution_backward(
        grad,
        unread,
        weight,
        None,
        plan.stride,
        plan.padding,
        plan.dilation,
        False,
        [0] * len(plan.stride),
        1,
        [True, False, False],
    )[0]
    return result


def _summed(grad: Tensor, weight: Tensor, shape: torch.Size, plan: _Plan) -> Tensor:
    """A uniform gradient with the same spatial sums as the gradient towards an input of `shape`.

    An input pixel meets an output pixel at each tap of the kernel; the sum over the input is, for
    each tap, a sum over those outputs whose input lies inside the image. What lies behind keeps
    sums, so that the spatial mean at the layer is exact.
    """
    sums = grad
    for axis, size in enumerate(shape[2:]):
        stride, padding = plan.stride[axis], plan.padding[axis]
        taps = []
        for tap in range(weight.shape[2 + axis]):
            shift = padding - tap * plan.dilation[axis]
            first = max(0, math.ceil(shift / stride))
            last = min(grad.shape[2 + axis] - 1, (size - 1 + shift) // stride)
            # The axis that is summed is always the third: each tap takes its place at the end.
            count = max(0, last - first + 1)
            taps.append(sums.narrow(2, first if count else 0, count).sum(dim=2))
        sums = torch.stack(taps, dim=-1)
    total = sums.flatten(1) @ weight.movedim(1, -1).flatten(0, -2)
    return (total / math.prod(shape[2:])).view(*shape[:2], *[1] * (len(shape) - 2)).expand(shape)


def _each(value: int | Sequence[int], dims: int) -> list[int]:
    return [value] * dims if isinstance(value, int) else list(value) * (dims // len(value))


def _is_checkpointed() -> bool:
    """Whether a checkpoint is recording, whose second run must save the same tensors."""
    top = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", None)
    return top is not None and top(True) is not None
