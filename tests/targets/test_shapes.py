"""Components against SciPy's labels, bands against its distances."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.targets.reference import (
    Case,
    assert_mean_over,
    band,
    case,
    components,
    seed_of,
    seed_over,
)
from unetcam.errors import TargetError
from unetcam.measures.regions import INNER_BAND, OUTER_BAND, Geometry
from unetcam.targets import (
    Band,
    ClassScore,
    Component,
    Contrast,
    FalsePositives,
    PredictedRegion,
    Region,
    RegionScore,
    TruthRegion,
)

KINDS = [
    pytest.param(dims, channels, dtype, id=f"{dims}-D {channels} channels {str(dtype)[6:]}")
    for dims in (2, 3)
    for channels in (1, 3)
    for dtype in (torch.float32, torch.float64)
]


def sparse(dims: int = 2, channels: int = 3, dtype: torch.dtype = torch.float64) -> Case:
    """Of each class a few small components; the last image has none of class 1."""
    found = case(dims, channels, dtype)
    generator = torch.Generator().manual_seed(4)
    drawn = torch.rand(found.truth.shape, generator=generator) < 0.16
    drawn[-1] = False
    return Case(found.logits, torch.where(drawn, 1, 0))


def assert_explains(target: RegionScore, found: Case, regions: list[np.ndarray]) -> None:
    values = [found.scores(image)[target.class_index] for image in range(found.batch)]
    assert_mean_over(target, found, regions, values)
    seed = seed_over(found, regions, target.class_index)
    torch.testing.assert_close(seed_of(target, found.logits), seed)


@pytest.mark.parametrize(("dims", "channels", "dtype"), KINDS)
def test_a_component_is_chosen_by_index_point_or_rank(
    dims: int, channels: int, dtype: torch.dtype
) -> None:
    found = sparse(dims, channels, dtype)
    of = TruthRegion(1, found.truth)
    parts = [components(found.true(i, 1)) for i in range(found.batch)]
    assert len(parts[0]) > 2
    assert not parts[-1]
    none = np.zeros(found.truth.shape[1:], bool)
    for place in (0, 1, 2, 99):
        by_index = [p[place] if place < len(p) else none for p in parts]
        assert_explains(Component(1, of=of, index=place), found, by_index)
        by_size = [sorted(p, key=np.sum, reverse=True) for p in parts]
        by_rank = [p[place] if place < len(p) else none for p in by_size]
        assert_explains(Component(0, of=of, rank=place), found, by_rank)
    for point in (tuple(np.argwhere(parts[0][1])[0]), (0,) * dims):
        holding = [next((c for c in p if c[point]), none) for p in parts]
        assert_explains(Component(1, of=of, point=point), found, holding)
    assert Component(1, of=of) == Component(1, of=of, rank=0)


@pytest.mark.parametrize(("dims", "channels", "dtype"), KINDS)
@pytest.mark.parametrize("side", ["both", "inner", "outer"])
@pytest.mark.parametrize("width", [1.0, sqrt(2), 2.5])
def test_a_band_lies_along_the_contour(
    dims: int, channels: int, dtype: torch.dtype, side: str, width: float
) -> None:
    found = sparse(dims, channels, dtype)
    truth = found.truth.clone()
    truth[:, 0] = -1  # ignored: no contour along it
    found = Case(found.logits, truth)
    regions = [
        band(found.true(i, 1), found.known(i) & ~found.true(i, 1), width, side)
        for i in range(found.batch)
    ]
    target = Band(1, of=TruthRegion(1, truth), width=width, side=side)
    assert_explains(target, found, regions)
    assert not target.score(found.logits).defined[-1]
    predicted = [found.predicted(i, 0) for i in range(found.batch)]
    own = [band(p, ~p, width, side) for p in predicted]
    assert_explains(Band(0, width=width, side=side), found, own)


def test_the_band_is_that_of_the_analysis() -> None:
    generator = torch.Generator().manual_seed(3)
    truth = (torch.rand(2, 60, 80, generator=generator) > 0.995).long()
    truth[:, :5] = -1
    logits = torch.zeros(2, 2, 60, 80)
    geometry = Geometry(truth, [1], num_classes=2)
    zones = geometry.zones[:, 0].view(2, 60, 80)
    for side, part in (("inner", INNER_BAND), ("outer", OUTER_BAND)):
        pixels = Band(1, of=TruthRegion(1, truth), side=side).pixels(logits)
        assert torch.equal(pixels, (zones >= part.start) & (zones < part.stop))


def test_what_fills_the_image_has_no_contour() -> None:
    logits = torch.zeros(1, 2, 5, 5)
    logits[:, 0] = 1
    for target in (Band(0), Band(1), Band(0, of=torch.ones(5, 5)), Band(0, of=ClassScore(0))):
        assert not target.score(logits).defined.any()


def test_shapes_are_made_of_any_region() -> None:
    found = case()
    wrong = FalsePositives(2, found.truth)
    largest = [max(components(found.false_positives(i, 2)), key=np.sum) for i in range(found.batch)]
    assert_explains(Component(2, of=wrong), found, largest)
    rings = [band(region, ~region & found.known(i), 1.0) for i, region in enumerate(largest)]
    assert_explains(Band(2, of=Component(2, of=wrong), width=1), found, rings)
    mask = torch.zeros(9, 11)
    mask[2:4, 3:8] = 1
    drawn = [mask.numpy() > 0] * found.batch
    assert_explains(Component(1, of=mask), found, drawn)
    assert_explains(Component(1, of=Region(0, mask)), found, drawn)


def test_narrowing_a_shape_comes_after_making_it() -> None:
    found = case()
    left = np.zeros((9, 11), bool)
    left[:, :5] = True
    whole = [max(components(found.predicted(i, 1)), key=np.sum) for i in range(found.batch)]
    assert_explains(Component(1, within=left), found, [part & left for part in whole])
    halves = [found.predicted(i, 1) & left for i in range(found.batch)]
    largest = [max(components(half), key=np.sum) for half in halves]
    assert_explains(Component(1, of=PredictedRegion(1, within=left)), found, largest)


def test_what_one_truth_ignores_is_unknown_in_any_region_made_of_it() -> None:
    found, other = case(), case(seed=1).truth
    inner = TruthRegion(2, other)
    for target in (
        TruthRegion(1, found.truth, within=inner),
        Contrast(1, found.truth, within=inner),
        Component(0, of=FalsePositives(1, found.truth), within=inner),
    ):
        assert torch.equal(target.counted(found.logits), (found.truth >= 0) & (other >= 0))
    assert torch.equal(ClassScore(0, within=inner).counted(found.logits), other >= 0)
    assert ClassScore(0, within=PredictedRegion(1)).counted(found.logits) is None


def test_a_multi_label_head_makes_shapes_of_each_channel() -> None:
    found = case()
    positive = [found.scores(i)[2] > 0 for i in range(found.batch)]
    largest = [max(components(mask), key=np.sum) for mask in positive]
    assert_explains(Component(2, head="sigmoid"), found, largest)
    assert_explains(Band(2, head="sigmoid", width=1), found, [band(m, ~m, 1) for m in positive])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([2, 3]))
def test_the_components_make_up_the_region(seed: int, dims: int) -> None:
    found = case(dims, seed=seed)
    whole = PredictedRegion(1).pixels(found.logits)
    parts = [Component(1, index=i).pixels(found.logits) for i in range(20)]
    assert not parts[-1].any()
    assert torch.equal(sum(part.int() for part in parts), whole.int())
    ranked = torch.stack([Component(1, rank=i).pixels(found.logits) for i in range(len(parts))])
    sizes = ranked.flatten(2).sum(2)
    assert (sizes.diff(dim=0) <= 0).all()
    assert torch.equal(ranked.any(0), whole)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Component(0, index=1, rank=0),
            "by one of index, rank and point, and index and rank were given",
        ),
        (lambda: Component(0, rank=-1), "rank=-1 is no number of a component"),
        (lambda: Band(0, width=0.2), "can't hold one"),
        (lambda: Band(0, side="left"), "side='left' is no side of a band: use one of both, inner"),
        (lambda: check(Component(0, point=(4, 0))), r"lies outside the logits.*\(4, 4\)"),
        (lambda: check(Component(0, point=(0, 0, 0))), "lies outside the logits"),
        (lambda: check(Component(0, of=torch.ones(3, 4))), r"has the shape \(3, 4\)"),
        (lambda: check(Band(0, of=PredictedRegion(7))), "asks for class 7"),
    ],
)
def test_a_shape_that_is_none_says_so(make: object, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        make()  # type: ignore[operator]


def check(target: RegionScore) -> None:
    target.check(torch.zeros(1, 3, 4, 4))


@pytest.mark.parametrize(
    ("target", "name"),
    [
        (Component(2), "class 2 in the largest component of predicted region of class 2"),
        (Component(2, rank=3), "class 2 in the component 3 by size of predicted region of class 2"),
        (Component(1, of=[[1]], index=0), "class 1 in the component 0 of a region"),
        (Component(1, of=[[1]], point=(0, 0)), "class 1 in the component at (0, 0) of a region"),
        (Band(1, side="inner"), "class 1 in the inner band of predicted region of class 1"),
        (Band(1, of=FalsePositives(1, [[0]])), "class 1 in the band of false positives of class 1"),
    ],
)
def test_names_say_what_and_where(target: RegionScore, name: str) -> None:
    assert target.name == name
