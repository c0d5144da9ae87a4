"""Deletion, insertion and imputation against NumPy, SciPy and numbers worked by hand."""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import spsolve
from torch import Tensor

from unetcam.measures import MeasureError
from unetcam.measures.faithfulness import faithfulness
from unetcam.measures.imputation import imputed


def solved(image: NDArray[np.float64], removed: NDArray[np.bool_]) -> NDArray[np.float64]:
    """ROAD's linear system for one channel, written pixel by pixel and solved directly."""
    pixels = [tuple(p) for p in np.argwhere(removed)]
    number = {p: k for k, p in enumerate(pixels)}
    matrix = sparse.lil_matrix((len(pixels), len(pixels)))
    right = np.zeros(len(pixels))
    for p, k in number.items():
        for offset in product((-1, 0, 1), repeat=image.ndim):
            q = tuple(np.add(p, offset))
            inside = all(0 <= x < n for x, n in zip(q, image.shape, strict=True))
            if not any(offset) or not inside:
                continue
            weight = 1 / sum(map(abs, offset))
            matrix[k, k] += weight
            if q in number:
                matrix[k, number[q]] -= weight
            else:
                right[k] += weight * image[q]
    filled = image.copy()
    filled[removed] = spsolve(matrix.tocsr(), right)
    return filled


@pytest.mark.parametrize("shape", [(13, 17), (6, 7, 8)])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_imputation_solves_roads_equations(shape: tuple[int, ...], share: float) -> None:
    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, 3, *shape)) * 20 + 100
    removed = rng.random((2, *shape)) < share
    found = imputed(torch.from_numpy(images), torch.from_numpy(removed), noise=0.0).numpy()
    for b, c in product(range(2), range(3)):
        np.testing.assert_allclose(found[b, c], solved(images[b, c], removed[b]), rtol=1e-4)
        assert np.array_equal(found[b, c][~removed[b]], images[b, c][~removed[b]])


def test_a_block_that_is_cut_out_is_filled_smoothly_in_float32() -> None:
    row = torch.arange(40.0)
    image = (row[:, None] + 2 * row)[None, None]  # a plane is its own imputation
    removed = torch.zeros(1, 40, 40, dtype=torch.bool)
    removed[:, 5:33, 8:36] = True
    torch.testing.assert_close(imputed(image, removed, noise=0.0), image, rtol=2e-3, atol=0.05)


def test_noise_is_seeded_and_lies_on_removed_pixels_alone() -> None:
    image = torch.rand(1, 2, 12, 12, generator=torch.Generator().manual_seed(0))
    removed = torch.zeros(1, 12, 12, dtype=torch.bool)
    removed[:, :6] = True
    state = torch.get_rng_state()
    one, again = imputed(image, removed, seed=1), imputed(image, removed, seed=1)
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(one, again)
    assert not torch.equal(one, imputed(image, removed, seed=2))
    assert torch.equal(one[:, :, 6:], image[:, :, 6:])
    clean = imputed(image, removed, noise=0.0)
    spread = (one - clean)[:, :, :6].std() / image.std()
    assert 0.005 < spread < 0.02


def test_of_an_image_of_which_nothing_is_left_the_mean_stays() -> None:
    image = torch.rand(2, 1, 5, 5, generator=torch.Generator().manual_seed(0))
    removed = torch.ones(2, 5, 5, dtype=torch.bool)
    removed[1, 0, 0] = False
    found = imputed(image, removed, noise=0.0)
    torch.testing.assert_close(found[0], image[0].mean().expand(1, 5, 5))
    torch.testing.assert_close(found[1], image[1, :, :1, :1].expand(1, 5, 5), rtol=1e-3, atol=0)


def bright(images: Tensor) -> Tensor:
    """Two classes: a pixel is of class 1 as far as it is above 2."""
    return torch.cat([2 - images, images - 2], dim=1)


def curve_by_hand(
    image: NDArray[np.float64], order: list[int], steps: int, mode: str
) -> list[float]:
    flat, mean = image.ravel(), image.mean()
    region = flat > 2
    scores = []
    for k in range(steps + 1):
        first = order[: round(k / steps * len(flat))]
        gone = np.zeros(len(flat), bool)
        gone[first] = True
        now = np.where(gone if mode == "deletion" else ~gone, mean, flat)
        probability = 1 / (1 + np.exp(-2 * (now - 2)))
        scores.append(probability[region].mean())
    return scores


@pytest.mark.parametrize("mode", ["deletion", "insertion"])
def test_curves_and_areas_are_those_worked_by_hand(mode: str) -> None:
    image = np.random.default_rng(0).random((4, 5)) * 4
    order = np.argsort(-image.ravel(), kind="stable").tolist()
    tensor = torch.from_numpy(image)[None, None]
    found = faithfulness(
        bright, tensor, tensor[:, 0], tensor[:, 0] > 2, 1, mode=mode, fill="mean", steps=5
    )
    wanted = curve_by_hand(image, order, 5, mode)
    np.testing.assert_allclose(found.curve[0].numpy(), wanted, rtol=1e-12)
    area = sum((a + b) / 2 for a, b in pairwise(wanted)) / 5
    assert found.area.item() == pytest.approx(area, rel=1e-12)
    ideal = (wanted[0] + wanted[-1]) / 2 / 5 + wanted[-1] * 4 / 5
    assert found.ideal_area.item() == pytest.approx(ideal, rel=1e-12)
    normalised = (area - found.random_area.item()) / (ideal - found.random_area.item())
    assert found.normalised.item() == pytest.approx(normalised, rel=1e-9)
    assert found.normalised.item() > 0.3  # the network is the map


@pytest.mark.parametrize("fill", ["road", "mean"])
@pytest.mark.parametrize("score", ["probability", "soft-dice", "iou"])
def test_a_right_map_beats_its_opposite(fill: str, score: str) -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.nn.functional.avg_pool2d(torch.rand(2, 1, 20, 20, generator=generator), 3, 1, 1)
    image = 2 + 20 * (image - 0.5)
    region = image[:, 0] > 2
    options = {"fill": fill, "score": score, "steps": 8}
    right = faithfulness(bright, image, image[:, 0], region, 1, **options)
    wrong = faithfulness(bright, image, -image[:, 0], region, 1, **options)
    assert (right.area < wrong.area).all()
    assert (right.normalised > wrong.normalised).all()
    # Where nothing or everything is gone, the order plays no part.
    ends = [0, -1]
    torch.testing.assert_close(right.curve[:, ends], wrong.curve[:, ends], rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(right.random[:, ends], wrong.curve[:, ends], rtol=1e-6, atol=1e-9)


def test_of_one_channel_class_1_is_the_foreground() -> None:
    image = torch.rand(1, 1, 6, 6, generator=torch.Generator().manual_seed(0)) * 4
    region = image[:, 0] > 2
    two = faithfulness(bright, image, image[:, 0], region, 1, fill="mean")
    one = faithfulness(lambda x: 2 * (x - 2), image, image[:, 0], region, 1, fill="mean")
    torch.testing.assert_close(one.curve, two.curve)


def test_an_empty_region_and_a_constant_network_have_no_normalised_area() -> None:
    image = torch.rand(1, 1, 6, 6)
    nothing = torch.zeros(1, 6, 6, dtype=torch.bool)
    assert faithfulness(bright, image, image[:, 0], nothing, 1).normalised.isnan().all()
    constant = faithfulness(lambda x: torch.zeros(len(x), 2, 6, 6), image, image[:, 0], ~nothing, 1)
    assert constant.normalised.isnan().all()
    assert (constant.curve == 0.5).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"maps": torch.ones(1, 3, 3)}, "The maps has shape"),
        ({"maps": torch.full((1, 4, 4), torch.nan)}, "NaN or infinity"),
        ({"region": torch.ones(1, 4, 4)}, "give torch.bool"),
        ({"class_index": 2}, "Class 2 is out of range"),
        ({"mode": "delete"}, "no mode 'delete'"),
        ({"fill": "zeros"}, "no fill 'zeros'"),
        ({"score": "dice"}, "no score 'dice'"),
        ({"steps": 0}, "0 steps take nothing away"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {
        "images": torch.rand(1, 1, 4, 4),
        "maps": torch.rand(1, 4, 4),
        "region": torch.ones(1, 4, 4, dtype=torch.bool),
        "class_index": 1,
    }
    with pytest.raises(MeasureError, match=message):
        faithfulness(bright, **(arguments | change))
