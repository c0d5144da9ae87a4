"""Changes of the whole image: its appearance and its place."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.interventions.networks import SIZE, by_itself, scenes
from unetcam.errors import UnetcamError
from unetcam.interventions import Baseline, Predictor
from unetcam.interventions.appearance import (
    APPEARANCES,
    appearance_effects,
    changed,
    fitting,
    usual_amounts,
)
from unetcam.interventions.position import Shift, quarter_shifts, shift_effects


def coloured(count: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(count, 3, 24, 32, generator=generator)


@pytest.mark.parametrize("name", APPEARANCES)
def test_a_change_follows_the_range_of_the_values(name: str) -> None:
    images = coloured()
    plain = changed(images, name)
    scaled = changed(images * 4 - 2, name)
    torch.testing.assert_close(scaled, plain * 4 - 2, rtol=1e-4, atol=1e-4)
    assert not torch.equal(plain, images)
    assert plain.shape == images.shape


@pytest.mark.parametrize("name", fitting(2))
def test_volumes_and_other_channels_are_changed_too(name: str) -> None:
    volumes = torch.rand(2, 2, 6, 12, 16, generator=torch.Generator().manual_seed(2))
    after = changed(volumes, name)
    assert after.shape == volumes.shape
    assert not torch.equal(after, volumes)


def test_changes_do_what_they_say() -> None:
    images = coloured()
    span = images.flatten(1).quantile(0.995, dim=1) - images.flatten(1).quantile(0.005, dim=1)
    inside = (images > 0.2) & (images < 0.8)
    for name, sign in (("brighter", 1), ("darker", -1)):
        added = (changed(images, name) - images) / span.view(-1, 1, 1, 1)
        assert added[inside].mean().item() == pytest.approx(sign * 0.1, abs=0.005)
    grey = changed(images, "grey")
    assert (grey[:, 0] - grey[:, 2]).abs().mean() < 0.01
    warm = changed(images, "warmer") - images
    assert warm[:, 0].mean() > 0.04
    assert warm[:, 2].mean() < -0.04
    assert changed(images, "more contrast").std() > images.std() > changed(images, "blurred").std()
    noise = changed(images, "noisy")
    assert torch.equal(noise, changed(images, "noisy"))
    assert not torch.equal(noise, changed(images, "noisy", seed=1))


def test_a_change_that_does_not_fit_is_refused() -> None:
    with pytest.raises(UnetcamError, match="3 channels"):
        changed(torch.zeros(1, 1, 8, 8), "grey")
    with pytest.raises(UnetcamError, match="did you mean grey"):
        changed(torch.zeros(1, 3, 8, 8), "gray")


def test_images_that_differ_more_are_changed_more() -> None:
    alike = coloured(1).repeat(4, 1, 1, 1)
    low = usual_amounts(alike)
    varied = alike * torch.tensor([0.8, 1.0, 1.2, 1.4]).view(-1, 1, 1, 1)
    varied[:, 0] += torch.tensor([-0.1, 0.0, 0.05, 0.1]).view(-1, 1, 1)
    high = usual_amounts(varied)
    for name in ("brighter", "darker", "more contrast", "less contrast", "warmer", "colder"):
        assert high[name] > low[name]
    assert high["blurred"] == low["blurred"]
    assert usual_amounts(varied * 50 - 7) == pytest.approx(high, abs=0.002)


def test_a_constant_image_stays_finite() -> None:
    for name in fitting(1):
        assert torch.isfinite(changed(torch.full((1, 1, 8, 8), 3.0), name)).all()


def test_the_change_that_a_class_hangs_on_is_the_one_that_flips_it() -> None:
    images = coloured()
    images[:, 0] += 0.5
    truth = torch.ones(len(images), 24, 32, dtype=torch.long)

    def by_colour(given: Tensor) -> Tensor:
        red = given[:, 0].mean(dim=(1, 2)) - given[:, 2].mean(dim=(1, 2)) - 0.1
        score = red.view(-1, 1, 1).expand(-1, 24, 32)
        return torch.stack((-score, score), dim=1)

    predictor = Predictor(by_colour)
    baseline = Baseline.of(predictor, images, truth)
    names = fitting(3)
    amounts = {name: APPEARANCES[name].amount for name in names}
    effects = appearance_effects(predictor, baseline, torch.arange(3), amounts)
    by_name = dict(zip(names, effects[:, :, 1].mean(dim=1).tolist(), strict=True))
    assert {name for name, flips in by_name.items() if flips == 1.0} == {"grey"}
    assert all(flips == 0.0 for name, flips in by_name.items() if name != "grey")
    assert effects[:, :, 0].isnan().all()


def test_a_shift_and_its_control_lose_the_same_pixels() -> None:
    images = torch.arange(12.0).view(1, 1, 3, 4)
    for shift in (Shift(0, 1), Shift(0, -1), Shift(1, 2), Shift(1, -2)):
        kept, arrived = shift.kept((3, 4)), shift.arrived((3, 4))
        moved, unmoved = shift.moved(images), shift.unmoved(images)
        assert torch.equal(moved[(..., *arrived)], images[(..., *kept)])
        assert torch.equal(unmoved[(..., *kept)], images[(..., *kept)])
        assert set(moved.unique().tolist()) == set(unmoved.unique().tolist())


def test_a_network_that_knows_where_things_stand_is_found_out() -> None:
    images, truth = scenes(cue=False)
    truth = (truth > 0).long()
    rows = torch.arange(SIZE[0]).view(-1, 1)

    def by_place(given: Tensor) -> Tensor:
        inside = given[:, 0] - 0.5 - 2.0 * (rows < 20)
        return torch.stack((-inside, inside), dim=1)

    for network, expected in ((by_place, 1.0), (by_itself, 0.0)):
        predictor = Predictor(network)
        baseline = Baseline.of(predictor, images, truth)
        flips, control = shift_effects(predictor, baseline, torch.arange(4), Shift(0, -16))
        assert flips[:, 1].mean().item() == pytest.approx(expected, abs=0.3)
        assert control[:, 1].max().item() == 0.0
        assert predictor.forwards == 12


def test_shifts_are_whole_strides_and_leave_half_the_image_in_view() -> None:
    for size, stride in (((64, 48), 16), ((10, 200), 8), ((7, 7), 1), ((16, 40, 40), 4)):
        for shift in quarter_shifts(size, stride):
            assert shift.pixels % stride == 0
            assert abs(shift.pixels) <= size[shift.axis] // 2
    assert quarter_shifts((8, 8), stride=16) == ()
