"""What is found to be leaned on is what the network leans on, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.interventions.networks import SIZE, by_corner, by_itself, scenes
from unetcam.errors import DataError, TargetError, UnetcamError
from unetcam.interventions import reliance


def test_a_far_patch_that_decides_is_found_with_its_place() -> None:
    images, truth = scenes()
    found = reliance(by_corner, images, truth, classes=[2])
    assert found.image.tolist() == [1, 3]
    for number, window in enumerate(found.windows):
        assert window is not None
        assert window.flips == 1.0
        patch = torch.zeros(SIZE, dtype=torch.bool)
        patch[2:8, 3:9] = True
        assert (window.mask(SIZE) & patch).sum() >= 18  # half of the patch
        assert window.mask(SIZE).sum() <= 12 * 12
        assert found.maps[number][patch].nanmean() > 0.3
        assert torch.nan_to_num(found.maps[number][:, 30:]).max() == 0.0
    assert found.flips.tolist() == [1.0, 1.0]
    assert found.control.tolist() == [0.0, 0.0]
    assert found.all.tolist() == found.far.tolist() == [1.0, 1.0]
    assert found.near.tolist() == found.edge.tolist() == [0.0, 0.0]


def test_a_network_that_looks_at_the_pixel_alone_leans_on_nothing() -> None:
    images, truth = scenes()
    found = reliance(by_itself, images, (truth > 0).long())
    for share in (found.flips, found.control, found.all, found.near, found.far, found.edge):
        assert torch.nan_to_num(share).max() == 0.0
    assert torch.nan_to_num(found.maps).max() == 0.0


def test_the_region_and_its_band_are_never_touched() -> None:
    images, truth = scenes()
    seen: list[Tensor] = []

    def recording(given: Tensor) -> Tensor:
        seen.append(given.clone())
        return by_corner(given)

    found = reliance(recording, images[1:2], truth[1:2], classes=[2], band=3.0)
    distance = torch.cdist(
        torch.nonzero(torch.ones(SIZE)).float(), torch.nonzero(truth[1] == 2).float()
    )
    spared = (distance.amin(dim=1) <= 3.0).view(SIZE)
    for batch in seen:
        assert torch.equal(batch[:, :, spared], images[1:2, :, spared].expand(len(batch), -1, -1))
    assert found.maps[0][spared].isnan().all()
    assert not found.maps[0][~spared].isnan().all()
    assert found.band == 3.0


def test_objects_of_one_class_are_asked_apart() -> None:
    images = torch.zeros(1, 2, *SIZE)
    truth = torch.zeros(1, *SIZE, dtype=torch.long)
    for left in (10, 44):
        images[0, 0, 20:28, left : left + 8] = 1.0
        truth[0, 20:28, left : left + 8] = 1
    images[0, 1, 2:6, 56:60] = 1.0  # the right object stands on it, the left one doesn't
    columns = torch.arange(SIZE[1])

    def network(given: Tensor) -> Tensor:
        cue = given[:, 1, 2:6, 56:60].mean(dim=(1, 2)).view(-1, 1, 1)
        inside = given[:, 0] - 0.5 - (columns > 30) * (1 - cue)
        return torch.stack((-inside, inside), dim=1)

    found = reliance(network, images, truth, classes=[1], objects=True)
    assert found.classes.tolist() == [1, 1]
    right = [bool(mask[:, 44:52].any()) for mask in found.regions]
    assert sorted(right) == [False, True]
    flips = dict(zip(right, found.flips.tolist(), strict=True))
    assert flips == {False: 0.0, True: 1.0}
    assert found.class_maps(1, 2).shape == (1, 2, *SIZE)
    assert found.class_maps(1, 2)[0, 0].isnan().all()


def test_a_volume_is_searched_like_an_image() -> None:
    truth = torch.zeros(1, 20, 24, 28, dtype=torch.long)
    truth[0, 8:14, 8:14, 14:20] = 1
    images = torch.stack((truth.float(), torch.zeros_like(truth).float()), dim=1)
    images[0, 1, 1:4, 2:5, 3:6] = 1.0

    def network(given: Tensor) -> Tensor:
        cue = given[:, 1, 1:4, 2:5, 3:6].mean(dim=(1, 2, 3)).view(-1, 1, 1, 1)
        inside = (given[:, 0] - 0.5) * (cue - 0.7)
        return torch.stack((-inside, inside), dim=1)

    found = reliance(network, images, truth, classes=[1])
    (window,) = found.windows
    assert window is not None
    assert window.start[0] <= 2
    assert window.stop[2] <= 10
    assert found.flips.tolist() == [1.0]
    assert found.control.tolist() == [0.0]


def test_every_count_of_forwards_is_honest_and_the_same_call_gives_the_same() -> None:
    images, truth = scenes()
    count = 0

    def counting(given: Tensor) -> Tensor:
        nonlocal count
        count += len(given)
        return by_corner(given)

    first = reliance(counting, images, truth)
    assert first.forwards == count
    torch.manual_seed(99)
    again = reliance(by_corner, images, truth)
    assert torch.equal(torch.nan_to_num(first.maps, -1), torch.nan_to_num(again.maps, -1))
    assert first.windows == again.windows


@pytest.mark.parametrize("budget", [1 << 20, 1 << 24, None])
def test_chunks_change_nothing(budget: int | None) -> None:
    images, truth = scenes()
    whole = reliance(by_corner, images, truth)
    parts = reliance(by_corner, images, truth, memory_budget=budget)
    assert torch.equal(torch.nan_to_num(whole.maps, -1), torch.nan_to_num(parts.maps, -1))


def test_a_module_is_left_as_it_was_found() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm2d(2)
            self.drop = nn.Dropout(0.5)
            self.conv = nn.Conv2d(2, 3, 1)

        def forward(self, images: Tensor) -> Tensor:
            return self.conv(self.drop(self.norm(images))) + by_corner(images)

    torch.manual_seed(0)
    model = Net().train()
    nn.init.zeros_(model.conv.weight)
    nn.init.zeros_(model.conv.bias)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    images, truth = scenes()
    reliance(model, images, truth, classes=[2])
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    assert model.training
    assert model.drop.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not model._forward_hooks


def test_one_channel_of_logits_is_foreground_against_background() -> None:
    images, truth = scenes()
    found = reliance(lambda given: given[:, :1] - 0.5, images, (truth > 0).long(), classes=[1])
    assert len(found) == 4
    assert torch.nan_to_num(found.flips).max() == 0.0


def test_labels_that_overlap_are_read_with_a_sigmoid() -> None:
    images, truth = scenes()
    both = torch.stack((truth > 0, truth == 2), dim=1).long()

    def network(given: Tensor) -> Tensor:
        return torch.stack((given[:, 0] - 0.5, by_corner(given)[:, 2] - 0.5), dim=1)

    found = reliance(network, images, both, head="sigmoid")
    by_class = {
        index: found.flips[found.classes == index].tolist() for index in found.classes.tolist()
    }
    assert by_class == {0: [0.0] * 4, 1: [1.0] * 2}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"classes": [3]}, TargetError, "There is no class 3"),
        ({"fills": ["mean"]}, UnetcamError, "two of different kind"),
        ({"fills": ["noise", "other"]}, UnetcamError, "two of different kind"),
        ({"fills": ["mean", "nois"]}, UnetcamError, "did you mean noise"),
        ({"band": -1.0}, UnetcamError, "no width in pixels"),
        ({"smallest": 0}, UnetcamError, "no window's side"),
        ({"truth": torch.zeros(4, 8, 8, dtype=torch.long)}, DataError, "does not fit images"),
        ({"truth": torch.full((4, *SIZE), 7)}, DataError, "holds class 7"),
        ({"truth": torch.full((4, *SIZE), -1)}, DataError, "nothing that could flip"),
        ({"head": "tanh"}, UnetcamError, "no head"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_sentence(
    change: dict[str, Any], error: type[Exception], message: str
) -> None:
    images, truth = scenes()
    with pytest.raises(error, match=message) as raised:
        reliance(by_corner, **{"images": images, "truth": truth, **change})
    assert str(raised.value).endswith((".", "?"))


def test_a_cue_as_large_as_a_coarse_window_is_in_the_map_though_its_parts_flip_nothing() -> None:
    images, truth = scenes(2)
    images, truth = images[1:], truth[1:]
    images[:, 1] = 0.0
    images[:, 1, :12, :12] = 1.0

    def network(given: Tensor) -> Tensor:
        inside = given[:, 0] - 0.5
        # A quarter of it hidden leaves .75, and all of it nothing.
        cue = given[:, 1, :12, :12].mean(dim=(1, 2)).view(-1, 1, 1) - 0.4
        return torch.stack((-inside, inside - cue, inside + cue), dim=1)

    found = reliance(network, images, truth, classes=[2])
    assert found.windows[0] is not None
    assert (found.windows[0].start, found.windows[0].stop) == ((0, 0), (12, 12))
    assert found.flips.tolist() == [1.0]
    inside, outside = found.maps[0, :12, :12], found.maps[0, 24:, :24]
    assert inside.mean() >= 0.5
    assert torch.nan_to_num(outside).max() == 0.0
