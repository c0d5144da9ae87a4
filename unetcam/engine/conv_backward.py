"""A convolution whose backward computes no more than it is asked for."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from unetcam.engine.tensors import at_least_single

_FORWARD = {2: F.conv2d, 3: F.conv3d}


@dataclass(frozen=True)
class Branch:
    """Input channels whose gradient is needed.

    Attributes
    ----------
    shape : torch.Size
        (B, channels, *spatial), before any enlargement.
    start : int
        The first of them among the convolution's input channels.
    dtype : torch.dtype
    only_sum : bool
        Whether any gradient with the same spatial sums does.
    factor : tuple of int, optional
        How many times each axis is repeated (nearest neighbour) before the convolution.
    """

    shape: torch.Size
    start: int
    dtype: torch.dtype
    only_sum: bool = False
    factor: tuple[int, ...] | None = None

    @property
    def enlarged(self) -> tuple[int, ...]:
        """The spatial size that the convolution sees."""
        size = self.shape[2:]
        return tuple(n * f for n, f in zip(size, self.factor or (1,) * len(size), strict=True))


@dataclass(eq=False)
class Plan:
    """What a convolution's backward has to know.

    Attributes
    ----------
    weight : Tensor
        (outputs, inputs, *kernel).
    stride, padding, dilation : list of int
    branches : list of Branch
    classes : slice
        The outputs whose gradient is not zero.
    memory_format : torch.memory_format
        That of the forward.
    mirrors : bool
        Whether the backward is a convolution with the mirrored kernel.
    """

    weight: Tensor
    stride: list[int]
    padding: list[int]
    dilation: list[int]
    branches: list[Branch] = field(default_factory=list)
    classes: slice = field(default_factory=lambda: slice(None))
    memory_format: torch.memory_format = torch.contiguous_format
    mirrors: bool = False
    _mirrored: dict[tuple[int, torch.dtype], Tensor] = field(default_factory=dict)

    def scaled(self, scale: Tensor) -> Plan:
        """The plan of the same convolution with each output multiplied by a factor."""
        weight = self.weight * scale.view(-1, *[1] * (self.weight.ndim - 1))
        return replace(self, weight=weight.to(self.weight.dtype), _mirrored={})

    def change(self, weight: Tensor) -> None:
        """Let backwards from now on take another kernel of the same shape."""
        self.weight = weight
        self._mirrored.clear()

    def can_be_mirrored(self) -> bool:
        """Whether the backward can be a convolution with the mirrored kernel."""
        reach = [d * (k - 1) for d, k in zip(self.dilation, self.weight.shape[2:], strict=True)]
        return set(self.stride) == {1} and all(
            p <= r for p, r in zip(self.padding, reach, strict=True)
        )

    def mirrored(self, branch: Branch, dtype: torch.dtype) -> Tensor:
        """(channels of the branch, outputs, *kernel): the kernel turned around, made once.

        The repetition of a nearest-neighbour enlargement is summed into it.
        """
        key = (branch.start, dtype)
        if key not in self._mirrored:
            part = self.weight[:, branch.start : branch.start + branch.shape[1]].to(dtype)
            kernel = part.flip(*range(2, part.ndim)).transpose(0, 1)
            for axis, factor in enumerate(branch.factor or ()):
                kernel = _repeated(kernel, 2 + axis, factor)
            self._mirrored[key] = kernel.contiguous(memory_format=self.memory_format)
        return self._mirrored[key][:, self.classes]


def _repeated(kernel: Tensor, axis: int, factor: int) -> Tensor:
    """The sum of the kernel at `factor` offsets, one after the other along an axis."""
    if factor == 1:
        return kernel
    gaps = [0, 0] * (kernel.ndim - 1 - axis)
    return torch.stack(
        [F.pad(kernel, [*gaps, offset, factor - 1 - offset]) for offset in range(factor)]
    ).sum(dim=0)


class Convolution(torch.autograd.Function):
    """A forward that is a convolution, scaled and shifted; gradients for a plan's branches."""

    @staticmethod
    def forward(ctx: Any, forward: Callable[[], Tensor], plan: Plan, *parts: Tensor) -> Tensor:
        ctx.plan = plan
        return forward()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        plan: Plan = ctx.plan
        grad = grads[0][:, plan.classes]
        results: list[Tensor | None] = [None, None]
        for branch in plan.branches:
            towards = summed_gradient if branch.only_sum else whole_gradient
            results.append(towards(grad, branch, plan).to(branch.dtype))
        return tuple(results)


def whole_gradient(grad: Tensor, branch: Branch, plan: Plan) -> Tensor:
    """The gradient towards a branch.

    Parameters
    ----------
    grad : Tensor
        (B, outputs in ``plan.classes``, *spatial), the gradient of what the convolution gave.
    branch : Branch
    plan : Plan

    Returns
    -------
    Tensor
        Of the branch's shape.
    """
    dims = len(plan.stride)
    if not torch._C._functorch.is_batchedtensor(grad):  # whose memory can't be read
        grad = grad.contiguous(memory_format=plan.memory_format)
    # With a stride, the mirrored kernel also adds up what an enlargement had repeated.
    if branch.factor is not None or plan.mirrors:
        rows = zip(plan.dilation, plan.weight.shape[2:], plan.padding, strict=True)
        return _FORWARD[dims](
            grad,
            plan.mirrored(branch, grad.dtype),
            stride=branch.factor or 1,
            padding=[d * (k - 1) - p for d, k, p in rows],
            dilation=plan.dilation,
        )
    unread = torch.empty(
        branch.shape, dtype=grad.dtype, device=grad.device, memory_format=plan.memory_format
    )
    result: Tensor = torch.ops.aten.convolution_backward(
        grad,
        unread,
        _weight_of(branch, plan, grad.dtype),
        None,
        plan.stride,
        plan.padding,
        plan.dilation,
        False,
        [0] * dims,
        1,
        [True, False, False],
    )[0]
    return result


def summed_gradient(grad: Tensor, branch: Branch, plan: Plan) -> Tensor:
    """A uniform gradient with the same spatial sums as the gradient towards a branch.

    An input pixel meets an output pixel at each tap of the kernel; the sum over the input is, for
    each tap, a sum over those outputs whose input lies inside the image. What lies behind keeps
    sums, so that the spatial mean at the layer is exact.

    Parameters
    ----------
    grad : Tensor
        (B, outputs in ``plan.classes``, *spatial).
    branch : Branch
    plan : Plan

    Returns
    -------
    Tensor
        Of the branch's shape, each channel of one value.
    """
    grad = at_least_single(grad)  # half precision does not hold a sum over a large image
    weight = _weight_of(branch, plan, grad.dtype)
    spatial = branch.shape[2:]
    sums = grad
    for axis, size in enumerate(branch.enlarged):
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
    mean = total / math.prod(spatial)
    return mean.view(*branch.shape[:2], *[1] * len(spatial)).expand(branch.shape)


def _weight_of(branch: Branch, plan: Plan, dtype: torch.dtype) -> Tensor:
    channels = slice(branch.start, branch.start + branch.shape[1])
    return plan.weight[plan.classes, channels].to(dtype)
