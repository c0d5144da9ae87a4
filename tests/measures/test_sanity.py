"""Similarity of maps against SciPy and scikit-image, and what a verdict says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from skimage.metrics import structural_similarity

from unetcam.measures import MeasureError
from unetcam.measures.sanity import (
    COPIES,
    EDGES,
    IGNORES,
    Similarity,
    different_pairs,
    judge,
    spearman,
    ssim,
)

NAN = float("nan")


def maps(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator).sub(0.4).clamp(min=0)


def test_spearman_is_that_of_scipy_with_many_zeros() -> None:
    one, other = maps(4, 9, 8), maps(4, 9, 8, seed=1)
    other[1] = one[1] ** 3  # the same order
    other[2] = one[2].max() - one[2]  # the opposite order
    found = spearman(one, other).numpy()
    wanted = [spearmanr(a.flatten(), b.flatten())[0] for a, b in zip(one, other, strict=True)]
    np.testing.assert_allclose(found, wanted, rtol=1e-12)
    assert found[1] == pytest.approx(1)
    assert found[2] == pytest.approx(-1)


def test_what_has_no_order_has_no_correlation() -> None:
    one = torch.stack([torch.ones(9), torch.full((9,), NAN), torch.arange(9.0)])
    found = spearman(one, torch.arange(9.0).expand(3, 9))
    assert found.isnan().tolist() == [True, True, False]


def test_ssim_is_that_of_scikit_image_on_maps_of_their_own_scale() -> None:
    one, other = maps(3, 32, 40) * 7, maps(3, 32, 40, seed=1) / 9
    found = ssim(one, other).numpy()

    def mirrored(one: torch.Tensor) -> NDArray[np.float64]:
        # scikit-image leaves out a border of half a window, and here it counts, mirrored.
        return np.pad((one / one.max()).numpy().astype(np.float64), 5, mode="reflect")

    wanted = [
        structural_similarity(
            mirrored(a),
            mirrored(b),
            data_range=1.0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        for a, b in zip(one, other, strict=True)
    ]
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 6, 5), (2, 40, 3), (2, 5, 6, 7)])
def test_small_maps_and_volumes_have_a_similarity(shape: tuple[int, ...]) -> None:
    one = maps(*shape)
    assert ssim(one, one).tolist() == pytest.approx([1, 1], abs=1e-5)
    assert (ssim(one, maps(*shape, seed=1)) < 0.99).all()


def test_an_empty_map_is_like_nothing_and_counts_in_no_mean() -> None:
    one, other = maps(3, 16, 16), maps(3, 16, 16, seed=1)
    one[0] = 0
    assert ssim(one, other).isnan().tolist() == [True, False, False]
    assert Similarity.of(one, other).pairs == 2
    nothing = Similarity.of(torch.zeros_like(one), other)
    assert nothing.pairs == 0
    assert np.isnan(nothing.spearman)


def test_pairs_are_of_different_images_and_drawn_once() -> None:
    first, second = different_pairs(20, 50, seed=3)
    pairs = set(zip(first.tolist(), second.tolist(), strict=True))
    assert len(pairs) == 50
    assert all(a < b < 20 for a, b in pairs)
    again = different_pairs(20, 50, seed=3)
    assert torch.equal(first, again[0])
    assert len(different_pairs(4)[0]) == 6
    with pytest.raises(MeasureError, match="fewer than two"):
        different_pairs(1)


def test_maps_of_two_shapes_are_refused() -> None:
    with pytest.raises(MeasureError, match="can't be compared"):
        spearman(maps(2, 4, 4), maps(2, 4, 5))


THRESHOLD = Similarity(0.5, 0.4, 50)
LIKE = Similarity(0.9, 0.9, 8)


@pytest.mark.parametrize(
    ("randomised", "baselines", "passed", "reason"),
    [
        (Similarity(0.49, 0.39, 8), {"mask-prior": LIKE}, True, ""),
        (Similarity(0.49, 0.41, 8), {}, False, IGNORES),
        (Similarity(0.51, 0.1, 8), {}, False, IGNORES),
        (Similarity(0.8, 0.8, 8), {"mask-prior": LIKE, "edges": Similarity(0.85, 0, 8)}, False,
         COPIES),
        (Similarity(0.8, 0.8, 8), {"mask-prior": Similarity(0.1, 0, 8), "edges": LIKE}, False,
         EDGES),
        (Similarity(0.95, 0.8, 8), {"mask-prior": LIKE, "edges": LIKE}, False, IGNORES),
        (Similarity(NAN, NAN, 0), {}, None, ""),
        (Similarity(NAN, 0.1, 8), {}, False, IGNORES),
    ],
)  # fmt: skip
def test_only_what_lies_below_the_threshold_in_both_passes(
    randomised: Similarity, baselines: dict[str, Similarity], passed: bool | None, reason: str
) -> None:
    verdict = judge(randomised, THRESHOLD, baselines)
    assert (verdict.passed, verdict.reason) == (passed, reason)
