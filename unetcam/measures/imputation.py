"""What stands in for pixels that are taken away: ROAD's noisy linear imputation, on the device."""

from __future__ import annotations

from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from unetcam.errors import MeasureError

_TOLERANCE = 1e-5
_MOST_STEPS = 2000


def imputed(images: Tensor, removed: Tensor, *, noise: float = 0.01, seed: int = 0) -> Tensor:
    """Images whose removed pixels are what their neighbours say, and a little noise.

    Parameters
    ----------
    images : Tensor
        ``(B, C, H, W)`` or ``(B, C, D, H, W)``, floating, any device.
    removed : Tensor
        ``(B, H, W)`` or ``(B, D, H, W)`` bool, on the same device.
    noise : float
        Standard deviation of the noise on the removed pixels, a share of the image's own.
    seed : int
        Seeds the noise.

    Returns
    -------
    Tensor
        Shape, dtype and device of the images; pixels that are not removed are the same. An image
        of which nothing is left gets its own mean.

    Raises
    ------
    MeasureError
        If shapes do not fit.

    Notes
    -----
    Each removed pixel is the weighted mean of its neighbours, removed ones among them, with the
    weight 1/6 for those that share an edge and 1/12 for those that share a corner [1]_; at the
    border the weights of what is there are scaled up. In a volume the weights are as 1 to 1/2 to
    1/3 for a face, an edge and a corner. The equations are symmetric and positive definite, and
    are solved for all images and channels at once by conjugate gradients.

    References
    ----------
    .. [1] Y. Rong, T. Leemann, V. Borisov, G. Kasneci and E. Kasneci, "A Consistent and Efficient
       Evaluation Strategy for Attribution Methods", ICML 2022 (section 4.1).

    Examples
    --------
    >>> import torch
    >>> image = torch.tensor([[[[0.0, 9.0, 2.0]]]])
    >>> imputed(image, image[:, 0] == 9, noise=0.0)
    tensor([[[[0., 1., 2.]]]])
    """
    if removed.shape != (images.shape[0], *images.shape[2:]) or removed.dtype != torch.bool:
        raise MeasureError(
            f"The removed pixels have shape {tuple(removed.shape)} and dtype {removed.dtype}: give "
            f"{(images.shape[0], *images.shape[2:])} of torch.bool."
        )
    known = images.float() if images.dtype in (torch.float16, torch.bfloat16) else images
    unknown = removed[:, None].expand_as(known)
    mean = known.flatten(2).mean(-1).view(*known.shape[:2], *[1] * (known.ndim - 2))
    some = ~removed.flatten(1).all(1).view(-1, *[1] * (known.ndim - 1))
    solved = torch.where(some, _solved(known, unknown & some), mean)
    if noise:
        spread = known.flatten(2).std(-1, correction=0).view_as(mean)
        generator = torch.Generator(known.device).manual_seed(seed)
        drawn = torch.empty_like(known).normal_(generator=generator)
        solved = solved + noise * spread * drawn
    return torch.where(unknown, solved.to(images.dtype), images)


def _kernel(dims: int, like: Tensor) -> Tensor:
    """``(1, 1, 3, ...)``: each neighbour's weight, 1 over how many axes it is off by."""
    offsets = list(product((-1, 0, 1), repeat=dims))
    axes = torch.tensor([sum(map(abs, offset)) for offset in offsets], device=like.device)
    weights = torch.where(axes > 0, 1.0 / axes.clamp(min=1).to(like.dtype), 0.0)
    return weights.view(1, 1, *[3] * dims)


def _solved(images: Tensor, unknown: Tensor) -> Tensor:
    """The images with the unknown values solved for, (B, C, *spatial)."""
    dims = images.ndim - 2
    kernel = _kernel(dims, images)
    convolve = F.conv2d if dims == 2 else F.conv3d

    def around(values: Tensor) -> Tensor:
        flat = values.reshape(-1, 1, *values.shape[2:])
        return convolve(flat, kernel, padding=1).view_as(values)

    def dot(one: Tensor, other: Tensor) -> Tensor:
        product = (one * other).flatten(2).sum(-1)
        return product.view(*product.shape, *[1] * dims)

    total = around(torch.ones_like(images[:1, :1]))
    free = unknown.to(images.dtype)
    right = free * around(images * (1 - free))
    mean = images.flatten(2).mean(-1).view(*images.shape[:2], *[1] * dims)
    solution = free * mean
    residual = right - free * (total * solution - around(solution))
    # The diagonal is all but constant, so that dividing by it is all the conditioning there is.
    direction = residual / total
    square = dot(residual, direction)
    smallest = torch.finfo(images.dtype).tiny
    enough = _TOLERANCE**2 * dot(right, right / total)
    for _ in range(_MOST_STEPS):
        if bool((square <= enough).all()):
            break
        applied = free * (total * direction - around(direction))
        curvature = dot(direction, applied)
        step = torch.where(curvature > 0, square / curvature.clamp(min=smallest), 0.0)
        solution = solution + step * direction
        residual = residual - step * applied
        fresh = residual / total
        grown = dot(residual, fresh)
        direction = (
            fresh + torch.where(square > 0, grown / square.clamp(min=1e-30), 0.0) * direction
        )
        square = grown
    return torch.where(unknown, solution, images)
