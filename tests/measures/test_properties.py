"""What must hold for every map and mask."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor

from unetcam.measures import column, measure

CLASSES = [0, 1, 2]

shapes = st.sampled_from([(1, 7), (9, 8), (12, 5), (4, 5, 6)])


@st.composite
def cases(draw: st.DrawFn, ignored: bool = True) -> tuple[Tensor, Tensor, Tensor]:
    """Maps with many ties and zeros, a truth and a prediction, for two images."""
    shape = draw(shapes)
    levels = st.sampled_from([0.0, 0.0, 0.125, 0.25, 0.5, 0.75, 1.0, 3.0])
    maps = draw(hnp.arrays(np.float32, (2, 3, *shape), elements=levels))
    lowest = -1 if ignored else 0
    truth = draw(hnp.arrays(np.int64, (2, *shape), elements=st.integers(lowest, 2)))
    prediction = draw(hnp.arrays(np.int64, (2, *shape), elements=st.integers(0, 2)))
    return torch.from_numpy(maps), torch.from_numpy(truth), torch.from_numpy(prediction)


def numbers(maps: Tensor, truth: Tensor, prediction: Tensor) -> dict[str, Tensor]:
    return measure(maps, CLASSES, truth, prediction, num_classes=3)


def assert_same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    for name, value in found.items():
        torch.testing.assert_close(
            value, wanted[name], rtol=1e-9, atol=1e-12, equal_nan=True, msg=name
        )


examples = settings(max_examples=25, deadline=None)


@examples
@given(cases())
def test_every_number_lies_in_its_columns_range(case: tuple[Tensor, Tensor, Tensor]) -> None:
    for name, value in numbers(*case).items():
        low, high = column(name).range
        known = value[~value.isnan()]
        assert ((known >= low - 1e-12) & (known <= high + 1e-12)).all(), name


@examples
@given(cases())
def test_what_is_shared_out_sums_to_one(case: tuple[Tensor, Tensor, Tensor]) -> None:
    found = numbers(*case)
    known = ~found["leak_0"].isnan()
    leak = torch.stack([found[f"leak_{c}"] for c in CLASSES])
    ones = torch.ones(int(known.sum()), dtype=torch.float64)
    torch.testing.assert_close(leak.sum(0)[known], ones)
    torch.testing.assert_close((found["outside_share"] + found["truth_energy"])[known], ones)
    own = torch.stack([found[f"leak_{c}"][:, c] for c in CLASSES], dim=1)
    torch.testing.assert_close(own[known], found["truth_energy"][known])
    assert (found["outside_far_share"] <= found["outside_share"] + 1e-12)[known].all()


@examples
@given(cases(), st.integers(-20, 20))
def test_scaling_a_map_changes_nothing(case: tuple[Tensor, Tensor, Tensor], exponent: int) -> None:
    maps, truth, prediction = case
    # A power of two scales floats exactly, so no comparison can turn.
    assert_same(numbers(maps * 2.0**exponent, truth, prediction), numbers(*case))


@examples
@given(cases(), st.permutations([0, 1]))
def test_images_are_measured_alone(case: tuple[Tensor, Tensor, Tensor], order: list[int]) -> None:
    found = numbers(*(part[order] for part in case))
    wanted = numbers(*case)
    assert_same(found, {k: v[order] for k, v in wanted.items()})


@examples
@given(cases())
def test_mirroring_moves_only_the_place(case: tuple[Tensor, Tensor, Tensor]) -> None:
    mirrored = numbers(*(part.flip(-1, -2) for part in case))
    wanted = numbers(*case)
    for name in ("hot_z", "hot_y", "hot_x"):
        mirrored.pop(name, None)
    assert_same(mirrored, wanted)


@examples
@given(cases(), hnp.arrays(np.float32, (2, 3, 6), elements=st.floats(0, 100, width=32)))
def test_ignored_pixels_count_nowhere(
    case: tuple[Tensor, Tensor, Tensor], noise: np.ndarray
) -> None:
    maps, truth, prediction = case
    other, changed = maps.clone(), prediction.clone()
    ignored = truth < 0
    values = torch.from_numpy(noise).flatten().repeat(maps.numel())[: maps.numel()]
    other = torch.where(ignored[:, None], values.view_as(maps), maps)
    changed = torch.where(ignored, (prediction + 1) % 3, prediction)
    assert_same(numbers(other, truth, changed), numbers(*case))


@examples
@given(cases(ignored=False))
def test_a_perfect_map_gets_every_point(case: tuple[Tensor, Tensor, Tensor]) -> None:
    _, truth, prediction = case
    perfect = torch.stack([truth == c for c in CLASSES], dim=1).float()
    found = numbers(perfect, truth, prediction)
    present = found["present"]
    for name in ("iou", "dice", "best_iou", "best_dice", "best_threshold", "ap"):
        assert (found[f"truth_{name}"][present] == 1).all(), name
    for name in ("pointing", "energy", "rank"):
        torch.testing.assert_close(
            found[f"truth_{name}"][present], torch.ones(int(present.sum()), dtype=torch.float64)
        )
    assert (found["outside_share"][present] == 0).all()
    assert (found["hot_count"][present] == 0).all()
    assert torch.equal(found["empty"], ~present)


@examples
@given(cases())
def test_an_absent_class_has_no_number_about_the_truth(
    case: tuple[Tensor, Tensor, Tensor],
) -> None:
    found = numbers(*case)
    absent, unpredicted = ~found["present"], ~found["predicted"]
    for name, value in found.items():
        kind = column(name)
        if kind.question in ("boundary", "background") or name in ("class_iou", "class_dice"):
            assert value[absent].isnan().all(), name
        if name.startswith("truth_") and kind.question == "overlap":
            assert value[absent].isnan().all(), name
        if name.startswith("prediction_"):
            assert value[unpredicted].isnan().all(), name


@examples
@given(cases())
def test_empty_and_unknown_maps_have_no_number_and_are_told_apart(
    case: tuple[Tensor, Tensor, Tensor],
) -> None:
    maps, truth, prediction = case
    wanted = numbers(*case)
    maps = maps.clone()
    maps[0, 0], maps[0, 1] = 0, torch.nan
    found = numbers(maps, truth, prediction)
    assert found["empty"][0, 0] == bool((truth[0] >= 0).any())
    assert not found["empty"][0, 1]
    for name, value in found.items():
        if column(name).question != "quality" and name not in ("empty", "band_area_share"):
            assert value[0, :2].isnan().all(), name
        torch.testing.assert_close(value[1], wanted[name][1], equal_nan=True, rtol=1e-12, atol=0)


@examples
@given(cases())
def test_the_bins_next_to_the_contour_make_up_the_band(
    case: tuple[Tensor, Tensor, Tensor],
) -> None:
    found = numbers(*case)
    # Images this small have a band of 1 pixel, and no pixel lies at half a pixel or less.
    for near, far, band in (("07", "06", "inner"), ("08", "09", "outer")):
        assert found[f"profile_{near}"].isnan().all()
        torch.testing.assert_close(
            found[f"profile_{far}"], found[f"boundary_{band}"], equal_nan=True
        )
