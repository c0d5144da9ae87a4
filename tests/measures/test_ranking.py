"""Sorting by packed bits against sorting by indices, and cuts among equal values."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from torch import Tensor

from unetcam.measures import ranking
from unetcam.measures.ranking import Ranking


def maps(scale: float, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Five maps of 400 values, a third of them 0 and many the same, with both regions."""
    generator = torch.Generator().manual_seed(1)
    values = torch.randint(-20, 60, (5, 400), generator=generator).clamp(min=0) / 16
    values[1] = torch.rand(400, generator=generator)
    values[2, 100:] = 0
    values[3] = 0
    membership = torch.randint(0, 4, (5, 400), generator=generator, dtype=torch.int32)
    return (values * scale).to(dtype), membership


# Powers of two leave every comparison as it is: from maps that no float16 would hold to denormals.
@pytest.mark.parametrize("exponent", [-140, -20, 0, 1, 5, 100, 121])
def test_packed_and_indexed_sorting_agree(exponent: int) -> None:
    values, membership = maps(2.0**exponent)
    packed = Ranking(values, values.amax(-1), membership)
    indexed = Ranking(values.double(), values.double().amax(-1), membership)
    torch.testing.assert_close(packed.weights, indexed.weights, rtol=0, atol=0)
    size = torch.stack((membership >> 1, membership & 1)).sum(-1).double()
    for one, other in zip(packed.best_cut(size), indexed.best_cut(size), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-14, atol=0)
    torch.testing.assert_close(
        packed.precision_gained(), indexed.precision_gained(), rtol=1e-12, atol=1e-12
    )


def test_values_that_packing_would_lose_are_kept() -> None:
    values = torch.tensor([[2.0**100, 2.0**-40, 2.0**-41, 0.0]])
    membership = torch.tensor([[0, 3, 0, 0]], dtype=torch.int32)
    order = Ranking(values, values.amax(-1), membership)
    assert order.weights.tolist() == [[2.0**100, 2.0**-40, 2.0**-41]]
    assert order.hits[0].tolist() == [[0.0, 1.0, 1.0]]


def test_precision_is_that_of_scikit_learn_where_values_are_equal() -> None:
    values, membership = maps(1.0)
    order = Ranking(values, values.amax(-1), membership)
    gained = order.precision_gained()
    for region, bit in enumerate((2, 1)):
        for row in (0, 1, 2):
            inside = (membership[row] & bit).bool()
            positive = values[row] > 0
            # What lies among the zeros is gained at the last cut, with the prevalence.
            missing = (inside & ~positive).sum() / inside.sum() * inside.float().mean()
            found = gained[region, row] / inside.sum() + missing
            wanted = average_precision_score(inside.numpy(), values[row].numpy())
            np.testing.assert_allclose(found.item(), wanted, rtol=1e-6)


def test_negative_zeros_are_zeros() -> None:
    values = torch.tensor([[-0.0, 1.0, -0.0]])
    order = Ranking(values, values.amax(-1), torch.full((1, 3), 3, dtype=torch.int32))
    assert order.positive.tolist() == [1]
    assert order.at_least(torch.tensor([[0.5]])).tolist() == [[1]]


def test_an_integer_sort_is_what_float32_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("sorted with indices")

    monkeypatch.setattr(ranking, "_sorted_with_indices", refuse)
    values, membership = maps(2.0**20)
    assert Ranking(values, values.amax(-1), membership).positive[0] > 0
