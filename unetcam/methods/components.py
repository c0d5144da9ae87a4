"""The first principal component of a feature map."""

from __future__ import annotations

import torch
from torch import Tensor


def first_component(
    features: Tensor, *, centred: bool = True, along: Tensor | None = None
) -> Tensor:
    """Each pixel's coordinate along the direction in which the pixels vary most.

    The pixels are P points in a space of K channels. With :math:`X = U S V^T`, the result is
    :math:`X v_1`. The sign of a singular vector is arbitrary: the one is taken that goes along a
    given map, and without one that whose coordinate of largest magnitude is positive (Chung and
    Ying, *Seg-Eigen-CAM*, Applied Sciences 2025, equation 13).

    Parameters
    ----------
    features : Tensor
        (B, K, *spatial).
    centred : bool
        Whether each channel's mean over the pixels is taken off first, as for a principal
        component.
    along : Tensor, optional
        (B, *spatial): the coordinates' product with it, summed over the pixels, is not negative.

    Returns
    -------
    Tensor
        (B, *spatial); zero where all pixels are alike.

    Examples
    --------
    >>> features = torch.tensor([[[[0.0, 3.0]], [[0.0, 4.0]]]])  # two pixels: (0, 0) and (3, 4)
    >>> first_component(features, centred=False)
    tensor([[[0., 5.]]])
    """
    # An eigenvector of X X^T or X^T X, whichever is the smaller, needs the digits.
    points = features.flatten(2).double()
    if centred:
        points = points - points.mean(dim=2, keepdim=True)
    channels, pixels = points.shape[1:]
    if channels <= pixels:
        directions = torch.linalg.eigh(points @ points.mT).eigenvectors[:, :, -1]
        coordinates = torch.einsum("bkp,bk->bp", points, directions)
    else:
        values, vectors = torch.linalg.eigh(points.mT @ points)
        coordinates = vectors[:, :, -1] * values[:, -1:].clamp(min=0).sqrt()
    coordinates = oriented(coordinates)
    if along is not None:
        against = (coordinates * along.flatten(1)).sum(dim=1, keepdim=True) < 0
        coordinates = torch.where(against, -coordinates, coordinates)
    return coordinates.view(len(features), *features.shape[2:]).to(features.dtype)


def oriented(maps: Tensor) -> Tensor:
    """Maps (B, ...) of arbitrary sign, turned so that the largest magnitude is positive.

    >>> oriented(torch.tensor([[1.0, -3.0], [1.0, 3.0]]))
    tensor([[-1.,  3.],
            [ 1.,  3.]])
    """
    values = maps.flatten(1)
    flipped = -values.amin(dim=1) > values.amax(dim=1)
    return torch.where(flipped.view(-1, *[1] * (maps.ndim - 1)), -maps, maps)
