"""Notice, during a forward, which convolutions need not do their whole backward.

What is left out changes no map:

- the gradient towards skips: a convolution over a concatenation is the sum of two convolutions,
  and only the branch that comes of a tapped layer is asked for its gradient;
- the enlarged gradient of a nearest-neighbour upsampling: convolution and upsampling together are
  one convolution with a stride, going backward;
- the normalisation behind a convolution, in evaluation a factor per channel: it goes into the
  kernel;
- at the deepest layer, for a method that needs its gradient's spatial mean only, the gradient
  itself: its sum is a small product of the weights with sums of the outgoing gradient;
- at the head, the classes that a target does not touch; and where classes outnumber the channels
  that it mixes, all backwards but one for each of those.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from unetcam.engine.conv_backward import Branch, Convolution, Plan
from unetcam.engine.function_mode import FunctionMode
from unetcam.engine.logits_conv import Head
from unetcam.engine.request import SHORTCUTS, Shortcut
from unetcam.engine.tensors import TensorTags

_CONVOLUTIONS = {F.conv2d: 2, F.conv3d: 3}
_LARGEST_REPETITION = 32
_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}
_PARAMETERS = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
#: What keeps channels apart and, going backward, each channel's spatial sum.
_KEEPS_SUMS = {F.interpolate, torch.clone, Tensor.clone, Tensor.contiguous}


@dataclass(frozen=True)
class _Enlarged:
    """What a nearest-neighbour upsampling repeated, and how often along each axis."""

    source: Tensor
    factor: tuple[int, ...]


@dataclass(frozen=True)
class _Made:
    """What a convolution was made of."""

    plan: Plan
    parts: tuple[Tensor, ...]


class Shortcuts(FunctionMode):
    """Inside, the convolutions of a forward take the shortcuts.

    Parameters
    ----------
    taken : frozenset of str
        Which of them.
    sums_suffice : bool
        Whether the method reduces a gradient by its spatial mean.
    """

    def __init__(self, taken: frozenset[Shortcut] = SHORTCUTS, *, sums_suffice: bool) -> None:
        super().__init__()
        self._taken, self._sums_suffice = taken, sums_suffice
        self._cats: TensorTags[tuple[Tensor, ...]] = TensorTags()
        self._summable: TensorTags[bool] = TensorTags()
        self._enlarged: TensorTags[_Enlarged] = TensorTags()
        self._made: TensorTags[_Made] = TensorTags()
        self._plans: TensorTags[Plan] = TensorTags()

    def leaf(self, tensor: Tensor) -> None:
        """Tag what flows on from a leaf: only its gradient's reduction will be asked for."""
        if self._sums_suffice and "deepest sum" in self._taken:
            self._summable.put(tensor, True)

    def head(self, logits: Tensor) -> Head:
        """The convolution that makes the logits."""
        plan = self._plans.get(logits)
        return Head(plan if plan is not None and "head" in self._taken else None)

    def call(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if function in _CONVOLUTIONS:
            bound = dict(zip(_PARAMETERS, args, strict=False)) | kwargs
            if self._applies(bound):
                return self._convolve(function, bound)
        if function is F.batch_norm:
            normalised = self._normalise(*args, **kwargs)
            if normalised is not None:
                return normalised
        result = function(*args, **kwargs)
        if function is torch.cat:
            self._tag_cat(result, *args, **kwargs)
        elif function in _KEEPS_SUMS and args and isinstance(result, Tensor):
            self._tag_kept(function, result, *args, **kwargs)
        return result

    # -- what came of what -------------------------------------------------------------------

    def _tag_cat(self, result: Tensor, tensors: Sequence[Tensor], dim: int = 0, **_: Any) -> None:
        if result.ndim not in _LAST:
            return
        plain = all(tensor.ndim == result.ndim and tensor.shape[1] for tensor in tensors)
        if plain and dim in (1, 1 - result.ndim):
            self._cats.put(result, tuple(tensors), *tensors)

    def _tag_kept(
        self,
        func: Callable[..., Any],
        result: Tensor,
        source: Tensor,
        size: Any = None,
        scale_factor: Any = None,
        mode: str = "nearest",
        *_: Any,
        recompute_scale_factor: bool | None = None,
        **__: Any,
    ) -> None:
        if self._summable.get(source):
            self._summable.put(result, True, source)
        if func is not F.interpolate:
            return
        plan = self._plans.get(source)
        if plan is not None:
            self._plans.put(result, plan, source)
        factor = _repetition(source, result)
        # With a broken scale factor torch does not repeat evenly, whatever the sizes come to.
        even = scale_factor is None or recompute_scale_factor or _is_whole(scale_factor)
        if source.requires_grad and mode in ("nearest", "nearest-exact") and even and factor:
            self._enlarged.put(result, _Enlarged(source, factor), source)

    def _needed(self, whole: Tensor, *, foldable: bool) -> list[tuple[Tensor, Branch]]:
        """The tensors that `whole` is made of and that need a gradient, each with its branch."""
        tensors = self._cats.get(whole) or (whole,)
        starts = itertools.accumulate((tensor.shape[1] for tensor in tensors), initial=0)
        needed = []
        for tensor, start in zip(tensors, starts, strict=False):
            if not tensor.requires_grad and "skips" in self._taken:
                continue
            enlarged = self._enlarged.get(tensor) if foldable else None
            if enlarged is not None and "enlargement" not in self._taken:
                enlarged = None
            source = tensor if enlarged is None else enlarged.source
            factor = None if enlarged is None else enlarged.factor
            only_sum = bool(self._summable.get(source))
            needed.append((source, Branch(source.shape, start, source.dtype, only_sum, factor)))
        return needed

    # -- the convolutions --------------------------------------------------------------------

    def _applies(self, bound: dict[str, Any]) -> bool:
        return (
            bound["input"].requires_grad
            and torch.is_grad_enabled()
            and bound["input"].ndim == bound["weight"].ndim
            and bound.get("groups", 1) == 1
            and not isinstance(bound.get("padding", 0), str)
            and not _needs_gradient(bound["weight"], bound.get("bias"))
            and not is_checkpointed()
        )

    def _convolve(self, func: Callable[..., Tensor], bound: dict[str, Any]) -> Tensor:
        whole = bound["input"]
        dims = _CONVOLUTIONS[func]
        plan = Plan(
            bound["weight"],
            _each(bound.get("stride", 1), dims),
            _each(bound.get("padding", 0), dims),
            _each(bound.get("dilation", 1), dims),
        )
        foldable = plan.can_be_mirrored() and set(plan.dilation) == {1}
        # On the CPU a convolution with the mirrored kernel is the faster way to the same sum.
        on_cpu = whole.device.type == "cpu" and plan.can_be_mirrored()
        plan.mirrors = on_cpu and "mirrored kernel" in self._taken
        needed = self._needed(whole, foldable=foldable)
        plan.branches = [branch for _, branch in needed]
        if whole.is_contiguous(memory_format=_LAST[whole.ndim]):
            plan.memory_format = _LAST[whole.ndim]
        parts = tuple(tensor for tensor, _ in needed)
        plain = {**bound, "input": whole.detach()}
        return self._planned(lambda: func(**plain), plan, parts)

    def _normalise(
        self,
        input: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor | None:
        made = self._made.get(input)
        if made is None or training or running_var is None or is_checkpointed():
            return None
        if _needs_gradient(running_mean, running_var, weight, bias):
            return None
        if "normalisation" not in self._taken:
            return None
        exact = torch.promote_types(running_var.dtype, torch.float32)
        scale = torch.rsqrt(running_var.to(exact) + eps)
        if weight is not None:
            scale = scale * weight
        plan = made.plan.scaled(scale)
        normalised = (running_mean, running_var, weight, bias, training, momentum, eps)
        source = input.detach()
        return self._planned(lambda: F.batch_norm(source, *normalised), plan, made.parts)

    def _planned(
        self, forward: Callable[[], Tensor], plan: Plan, parts: tuple[Tensor, ...]
    ) -> Tensor:
        result: Tensor = Convolution.apply(forward, plan, *parts)
        self._made.put(result, _Made(plan, parts), *parts)
        self._plans.put(result, plan)
        return result


def _each(value: Any, dims: int) -> list[int]:
    values = list(value) if isinstance(value, Iterable) else [value]
    return [operator.index(one) for one in values] * (dims // len(values))


def _repetition(source: Tensor, result: Tensor) -> tuple[int, ...] | None:
    """How often each axis is repeated; None where it is no whole number of times."""
    sizes = list(zip(result.shape[2:], source.shape[2:], strict=True))
    # Beyond this, torch's own rounding departs from an even repetition.
    if any(new % old or new // old > _LARGEST_REPETITION for new, old in sizes):
        return None
    return tuple(new // old for new, old in sizes)


def _is_whole(scale_factor: Any) -> bool:
    factors = scale_factor if isinstance(scale_factor, Iterable) else [scale_factor]
    return all(float(factor).is_integer() for factor in factors)


def _needs_gradient(*tensors: Tensor | None) -> bool:
    return any(tensor is not None and tensor.requires_grad for tensor in tensors)


def is_checkpointed() -> bool:
    """Whether a checkpoint is recording, whose second run must save the same tensors."""
    top = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", None)
    return top is not None and top(True) is not None
