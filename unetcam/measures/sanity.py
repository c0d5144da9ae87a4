"""Is the map about the network at all? What is left of it when the network is made random."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from unetcam.errors import MeasureError
from unetcam.resizing import interpolated

PAIRS = 50
"""Pairs of maps of different images that set the threshold, as Arun et al. take them."""

_SSIM_WINDOW, _SSIM_SIGMA = 11, 1.5
_SSIM_LARGEST = 96


def spearman(one: Tensor, other: Tensor) -> Tensor:
    """Spearman's rank correlation of maps, equal values sharing the mean of their ranks.

    Parameters
    ----------
    one, other : Tensor
        ``(R, *spatial)``, floating, on one device; row k of the one is compared with row k of the
        other.

    Returns
    -------
    Tensor
        ``(R,)`` float64, -1 to 1; NaN where a map is constant or holds NaN.

    Examples
    --------
    >>> import torch
    >>> spearman(torch.tensor([[1.0, 2.0, 4.0]]), torch.tensor([[1.0, 4.0, 16.0]])).round()
    tensor([1.], dtype=torch.float64)
    """
    _require_pairs(one, other)
    first, second = (_ranks(maps.flatten(1)) for maps in (one, other))
    norms = torch.linalg.vector_norm(first, dim=1) * torch.linalg.vector_norm(second, dim=1)
    unknown = one.isnan().flatten(1).any(1) | other.isnan().flatten(1).any(1) | (norms == 0)
    correlation = torch.linalg.vecdot(first, second) / norms
    return torch.where(unknown, torch.nan, correlation)


def _ranks(maps: Tensor) -> Tensor:
    """``(R, N)`` float64, the ranks less their mean."""
    maps = maps.contiguous()
    ordered = maps.sort(dim=1).values
    below = torch.searchsorted(ordered, maps)
    up_to = torch.searchsorted(ordered, maps, right=True)
    return (below + up_to).double().div_(2).sub_(maps.shape[1] / 2)


def ssim(one: Tensor, other: Tensor) -> Tensor:
    """Structural similarity of maps, each divided by its own maximum.

    Parameters
    ----------
    one, other : Tensor
        ``(R, H, W)`` or ``(R, D, H, W)``, floating, values >= 0, on one device. A side below the
        window of 11 pixels is enlarged to it, by linear interpolation; maps larger than 96 pixels
        are averaged over squares first, so that the window sees structure and not single pixels.

    Returns
    -------
    Tensor
        ``(R,)`` float64, -1 to 1; NaN where a map is empty or holds NaN.

    References
    ----------
    Z. Wang, A. Bovik, H. Sheikh and E. Simoncelli, "Image Quality Assessment: From Error
    Visibility to Structural Similarity", IEEE Transactions on Image Processing 13, 2004; as
    scikit-image and torchmetrics have it, with a Gaussian window of sigma 1.5.

    Examples
    --------
    >>> import torch
    >>> maps = torch.rand(1, 16, 16)
    >>> ssim(maps, 3 * maps).round(decimals=4)
    tensor([1.], dtype=torch.float64)
    """
    _require_pairs(one, other)
    first, second = (_scaled(maps) for maps in (one, other))
    known = (one.flatten(1).amax(1) > 0) & (other.flatten(1).amax(1) > 0)
    return torch.where(known, _structure(first, second).double(), torch.nan)


def _structure(one: Tensor, other: Tensor) -> Tensor:
    """``(R,)``: the mean over all places, the maps mirrored at their borders."""
    # torchmetrics' function is the same (tested); importing it takes longer than a check.
    stacked = torch.stack([one, other, one * one, other * other, one * other])
    blurred = _blurred(stacked.flatten(0, 1)).view(stacked.shape)
    first, second, first_square, second_square, product = blurred
    first_variance = (first_square - first * first).clamp(min=0)
    second_variance = (second_square - second * second).clamp(min=0)
    covariance = product - first * second
    light, contrast = 0.01**2, 0.03**2
    similarity = (2 * first * second + light) * (2 * covariance + contrast)
    scale = (first.square() + second.square() + light) * (
        first_variance + second_variance + contrast
    )
    means: Tensor = (similarity / scale).flatten(1).mean(dim=1)
    return means


def _blurred(maps: Tensor) -> Tensor:
    """Maps ``(R, 1, *spatial)`` under a Gaussian window, one axis after the other."""
    steps = torch.arange(_SSIM_WINDOW, device=maps.device, dtype=maps.dtype) - _SSIM_WINDOW // 2
    window = torch.exp(-(steps**2) / (2 * _SSIM_SIGMA**2))
    window = window / window.sum()
    convolve = F.conv2d if maps.ndim == 4 else F.conv3d
    half = _SSIM_WINDOW // 2
    maps = F.pad(maps, [half, half] * (maps.ndim - 2), mode="reflect")
    for axis in range(2, maps.ndim):
        shape = [1] * maps.ndim
        shape[axis] = _SSIM_WINDOW
        maps = convolve(maps, window.view(shape))
    return maps


def _scaled(maps: Tensor) -> Tensor:
    """``(R, 1, *spatial)`` float32 in [0, 1], no side below the window."""
    maps = torch.nan_to_num(maps.float())
    peak = maps.flatten(1).amax(1).view(-1, *[1] * (maps.ndim - 1))
    scaled = torch.where(peak > 0, maps / peak, 0.0)[:, None]
    factor = -(-max(maps.shape[1:]) // _SSIM_LARGEST)
    if factor > 1:
        kernel = [min(factor, side) for side in maps.shape[1:]]
        pool = F.avg_pool2d if maps.ndim == 3 else F.avg_pool3d
        scaled = pool(scaled, kernel, ceil_mode=True, count_include_pad=False)
    return interpolated(scaled, [max(side, _SSIM_WINDOW) for side in scaled.shape[2:]])


def _require_pairs(one: Tensor, other: Tensor) -> None:
    if one.shape != other.shape or one.ndim < 2:
        raise MeasureError(
            f"Maps of shapes {tuple(one.shape)} and {tuple(other.shape)} can't be compared: "
            "give two of one shape (R, *spatial)."
        )


def different_pairs(images: int, pairs: int = PAIRS, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Pairs of different images, drawn without replacement: two int64 tensors of positions.

    There are ``pairs`` of them, or as many as there are.

    Raises
    ------
    MeasureError
        For fewer than two images.

    Examples
    --------
    >>> first, second = different_pairs(3)
    >>> sorted(zip(first.tolist(), second.tolist()))
    [(0, 1), (0, 2), (1, 2)]
    """
    if images < 2:
        raise MeasureError(
            "A map's sanity is judged against maps of other images, and there are fewer than two: "
            "give more images that hold the class."
        )
    first, second = torch.triu_indices(images, images, 1)
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randperm(len(first), generator=generator)[:pairs]
    return first[drawn], second[drawn]


@dataclass(frozen=True)
class Similarity:
    """How alike two sets of maps are, in the mean over pairs: Spearman and SSIM; NaN without any.

    Attributes
    ----------
    spearman, ssim : float
        The means.
    pairs : int
        On how many pairs they stand.
    """

    spearman: float
    ssim: float
    pairs: int

    @classmethod
    def of(cls, one: Tensor, other: Tensor) -> Similarity:
        """The similarity of maps ``(R, *spatial)``, pair by pair; empty maps are left out."""
        ranks, structure = spearman(one, other), ssim(one, other)
        known = ~(ranks.isnan() | structure.isnan())
        return cls(
            ranks[known].mean().item(), structure[known].mean().item(), int(known.sum().item())
        )

    def below(self, threshold: Similarity) -> bool:
        """Whether both lie below a threshold's; what is NaN does not."""
        return self.spearman < threshold.spearman and self.ssim < threshold.ssim


@dataclass(frozen=True)
class Verdict:
    """Whether a map passed the randomisation of its network, and what it looks like if not.

    Attributes
    ----------
    passed : bool or None
        Whether the maps of the randomised network are less like the maps than those of different
        images are; None where there was nothing to compare. Passing proves nothing; only a fail
        counts [1]_.
    reason : str
        Where it failed: "copies the mask", "follows the image's edges" or "ignores the weights".

    References
    ----------
    .. [1] A. Binder, L. Weber, S. Lapuschkin, G. Montavon, K.-R. Mueller and W. Samek,
       "Shortcomings of Top-Down Randomization-Based Sanity Checks for Evaluations of Deep Neural
       Network Explanations", CVPR 2023.
    """

    passed: bool | None
    reason: str = ""


COPIES = "copies the mask"
EDGES = "follows the image's edges"
IGNORES = "ignores the weights"

_BASELINE_REASONS: Mapping[str, str] = {"mask-prior": COPIES, "edges": EDGES}


def judge(
    randomised: Similarity, threshold: Similarity, baselines: Mapping[str, Similarity]
) -> Verdict:
    """The verdict on a method, target and layer.

    Parameters
    ----------
    randomised : Similarity
        Of the maps to those of the randomised network.
    threshold : Similarity
        Of maps of different images: what two maps have in common whatever the image is [1]_.
    baselines : Mapping of str to Similarity
        Of the maps to those of the baselines "mask-prior" and "edges". A baseline explains a
        fail if it is as like the maps as the randomised network's maps are, by rank.

    Returns
    -------
    Verdict

    References
    ----------
    .. [1] N. Arun et al., "Assessing the Trustworthiness of Saliency Maps for Localizing
       Abnormalities in Medical Imaging", Radiology: Artificial Intelligence 3, 2021.

    Examples
    --------
    >>> different = Similarity(0.5, 0.4, 50)
    >>> judge(Similarity(0.1, 0.1, 8), different, {})
    Verdict(passed=True, reason='')
    >>> judge(Similarity(0.9, 0.8, 8), different, {"mask-prior": Similarity(0.95, 0.9, 8)}).reason
    'copies the mask'
    """
    if randomised.pairs == 0 or threshold.pairs == 0:
        return Verdict(None)
    if randomised.below(threshold):
        return Verdict(True)
    alike = {
        name: similarity.spearman
        for name, similarity in baselines.items()
        if name in _BASELINE_REASONS and similarity.spearman >= randomised.spearman
    }
    if not alike:
        return Verdict(False, IGNORES)
    return Verdict(False, _BASELINE_REASONS[max(alike, key=lambda name: alike[name])])
