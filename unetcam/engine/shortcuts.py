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
- at the head, the classes that a target does not touch.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from unetcam.engine.convolution import Branch, Convolution, Plan

_CONVOLUTIONS = {F.conv2d: 2, F.conv3d: 3}
_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}
_PARAMETERS = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
#: What keeps channels apart and, going backward, each channel's spatial sum.
_KEEPS_SUMS = {F.interpolate, torch.clone, Tensor.clone, Tensor.contiguous}


@dataclass(frozen=True)
class _Enlarged:
    """What a nearest-neighbour upsampling repeated, and how often along each axis."""

    source: Tensor
    factor: tuple[int, ...]
    versions: tuple[int, int]


@dataclass(frozen=True)
class _Made:
    """What a convolution was made of."""

    plan: Plan
    parts: tuple[Tensor, ...]
    version: int


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
        self._enlarged: MutableMapping[Tensor, _Enlarged] = WeakTensorKeyDictionary()
        self._made: MutableMapping[Tensor, _Made] = WeakTensorKeyDictionary()
        self._plans: MutableMapping[Tensor, Plan] = WeakTensorKeyDictionary()

    def leaf(self, tensor: Tensor) -> None:
        """Note what flows on from a leaf: only its gradient's reduction will be asked for."""
        if self._sums_suffice:
            self._summable[tensor] = tensor._version

    def head(self, logits: Tensor) -> Callable[[int | None], None]:
        """How to tell the convolution that makes the logits which channel a target touches."""
        plan = self._plans.get(logits)

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
        if func is F.batch_norm:
            normalised = self._normalise(*args, **kwargs)
            if normalised is not None:
                return normalised
        result = func(*args, **kwargs)
        if func is torch.cat:
            self._note_cat(result, *args, **kwargs)
        elif func in _KEEPS_SUMS and args and isinstance(result, Tensor):
            mode = kwargs.get("mode", args[3] if len(args) > 3 else "nearest")
            self._note_kept(func, args[0], result, mode)
        return result

    # -- what came of what -------------------------------------------------------------------

    def _is_summable(self, tensor: Tensor) -> bool:
        return self._summable.get(tensor) == tensor._version

    def _note_kept(
        self, func: Callable[..., Any], source: Tensor, result: Tensor, mode: str
    ) -> None:
        if self._is_summable(source):
            self._summable[result] = result._version
        if func is not F.interpolate:
            return
        if source in self._plans:
            self._plans[result] = self._plans[source]
        whole = [n % m == 0 for n, m in zip(result.shape[2:], source.shape[2:], strict=True)]
        if source.requires_grad and mode in ("nearest", "nearest-exact") and all(whole):
            factor = tuple(n // m for n, m in zip(result.shape[2:], source.shape[2:], strict=True))
            versions = result._version, source._version
            self._enlarged[result] = _Enlarged(source, factor, versions)

    def _note_cat(self, result: Tensor, tensors: Sequence[Tensor], dim: int = 0, **_: Any) -> None:
        if dim not in (1, 1 - result.ndim):
            return
        versions = tuple(tensor._version for tensor in tensors)
        self._parts[result] = _Cat(result._version, tuple(tensors), versions)

    def _needed(self, whole: Tensor, *, foldable: bool) -> list[tuple[Tensor, Branch]]:
        """The tensors that `whole` is made of and that need a gradient, each with its branch."""
        cat = self._parts.get(whole)
        tensors = cat.tensors if cat is not None and cat.holds(whole) else (whole,)
        starts = itertools.accumulate((tensor.shape[1] for tensor in tensors), initial=0)
        needed = []
        for tensor, start in zip(tensors, starts, strict=False):
            if not tensor.requires_grad:
                continue
            factor = None
            enlarged = self._enlarged.get(tensor)
            if foldable and enlarged is not None:
                source = enlarged.source
                if enlarged.versions == (tensor._version, source._version):
                    tensor, factor = source, enlarged.factor
            only_sum = self._is_summable(tensor)
            needed.append((tensor, Branch(tensor.shape, start, tensor.dtype, only_sum, factor)))
        return needed

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
        dims = _CONVOLUTIONS[func]
        plan = Plan(
            bound["weight"],
            _each(bound.get("stride", 1), dims),
            _each(bound.get("padding", 0), dims),
            _each(bound.get("dilation", 1), dims),
        )
        foldable = plan.is_mirrored() and set(plan.dilation) == {1}
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
        if made is None or training or running_var is None or input._version != made.version:
            return None
        scale = torch.rsqrt(running_var.detach().to(made.plan.weight.dtype) + eps)
        if weight is not None:
            scale = scale * weight.detach()
        plan = made.plan.scaled(scale)
        normalised = (running_mean, running_var, weight, bias, training, momentum, eps)
        source = input.detach()
        return self._planned(lambda: F.batch_norm(source, *normalised), plan, made.parts)

    def _planned(
        self, forward: Callable[[], Tensor], plan: Plan, parts: tuple[Tensor, ...]
    ) -> Tensor:
        result: Tensor = Convolution.apply(forward, plan, *parts)
        self._made[result] = _Made(plan, parts, result._version)
        self._plans[result] = plan
        return result


def _each(value: int | Sequence[int], dims: int) -> list[int]:
    return [value] * dims if isinstance(value, int) else list(value) * (dims // len(value))


def _is_checkpointed() -> bool:
    """Whether a checkpoint is recording, whose second run must save the same tensors."""
    top = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", None)
    return top is not None and top(True) is not None
