"""Scaling channels: the ones that drive an error, by hand, with the control."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from unetcam.errors import DataError, LayerError, TargetError
from unetcam.interventions import scale_channels


class Net(nn.Module):
    """Ground below .5; class 1 by channel 0, class 2 by channels 1 and 2, nothing by channel 3.

    Channel 1 is what makes class 1 be taken for class 2 where it is bright.
    """

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(4, 4, 1, bias=False)
        self.head = nn.Conv2d(4, 3, 1)
        with torch.no_grad():
            self.features.weight.copy_(
                torch.diag(torch.tensor([1.0, 2.0, 3.0, 1.0])).view(4, 4, 1, 1)
            )
            self.head.weight.copy_(
                torch.tensor([[0.0, 0, 0, 0], [1, 0, 0, 0], [0, 2, 1, 0]]).view(3, 4, 1, 1)
            )
            self.head.bias.copy_(torch.tensor([0.5, 0.0, 0.0]))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(images))
        return logits


def scenes() -> tuple[Tensor, Tensor]:
    """Three images of 6 x 6: a square of class 1 each, over which channel 1 is bright in two."""
    images = torch.zeros(3, 4, 6, 6)
    truth = torch.zeros(3, 6, 6, dtype=torch.long)
    images[:, 0, 1:5, 1:5] = 1.0
    images[:, 3] = 1.0
    truth[:, 1:5, 1:5] = 1
    images[0, 1, 1:5, 1:3] = 1.0  # half of the square
    images[2, 1, 1:5, 1:5] = 0.6  # all of it
    return images, truth


def test_the_channel_behind_an_error_by_hand() -> None:
    images, truth = scenes()
    scaled = scale_channels(Net(), images, truth, "features", class_index=1, taken_for=2, count=1)
    assert scaled.channels == (1,)
    assert scaled.image.tolist() == [0, 2]
    assert scaled.errors.flatten(1).sum(1).tolist() == [8, 16]
    # Class 2 less class 1: -1 * 1 by channel 0, 2 * (2 * 1.0 + 2 * .6) / 2 by channel 1.
    torch.testing.assert_close(
        scaled.drives, torch.tensor([-1.0, 3.2, 0.0, 0.0], dtype=torch.float64)
    )
    assert scaled.mended.tolist() == [1.0, 1.0]
    assert scaled.mended_control.tolist() == [0.0, 0.0]
    # Before, 8 of 16 pixels and none.
    torch.testing.assert_close(
        scaled.dice_before, torch.tensor([2 * 8 / 24, 0.0], dtype=torch.float64)
    )
    assert scaled.dice_after.tolist() == [1.0, 1.0]
    assert torch.equal(scaled.masks, truth[[0, 2]] == 1)
    # 3 as they are, 2 explained, 2 scaled and 2 for each of four draws.
    assert scaled.forwards == 3 + 2 + 2 + 8


def test_a_factor_leaves_a_part() -> None:
    images, truth = scenes()
    half = scale_channels(
        Net(), images, truth, "features", class_index=1, taken_for=2, count=1, factor=0.3
    )
    # 4 * .3 = 1.2 is still above 1 in image 0, and 2.4 * .3 = .72 below it in image 2.
    assert half.mended.tolist() == [0.0, 1.0]


def test_the_network_is_left_as_it_was() -> None:
    images, truth = scenes()
    network = Net().train()
    before = network(images)
    for _ in range(2):
        scale_channels(network, images, truth, "features", class_index=1, taken_for=2, count=1)
    assert network.training
    assert not network.features._forward_hooks
    assert all(one.grad is None and one.requires_grad for one in network.parameters())
    assert torch.equal(network(images), before)


class Skipped(nn.Module):
    """Its skip carries what makes the error."""

    def __init__(self) -> None:
        super().__init__()
        self.enc = nn.Conv2d(4, 4, 1, bias=False)
        self.down = nn.AvgPool2d(2)
        self.mid = nn.Conv2d(4, 4, 1)
        self.up = nn.Upsample(scale_factor=2)
        self.dec = nn.Conv2d(8, 4, 1, bias=False)
        self.head = Net().head
        with torch.no_grad():
            self.enc.weight.copy_(Net().features.weight)
            self.dec.weight.zero_()
            self.dec.weight[:, 4:] = torch.eye(4).view(4, 4, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        full = self.enc(images)
        joined = torch.cat([self.up(self.mid(self.down(full))), full], dim=1)
        logits: Tensor = self.head(self.dec(joined))
        return logits


def test_what_enters_by_a_skip_can_be_scaled_alone() -> None:
    images, truth = scenes()
    torch.manual_seed(0)
    network = Skipped()
    scaled = scale_channels(network, images, truth, "dec:skip", class_index=1, taken_for=2, count=1)
    assert scaled.channels == (1,)
    assert scaled.mended.tolist() == [1.0, 1.0]
    assert scaled.mended_control.tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"taken_for": 1}, TargetError, "can't be taken for itself"),
        ({"taken_for": 3}, TargetError, "There is no class 3"),
        ({"class_index": 2, "taken_for": 0}, DataError, "No pixel of class 2"),
        ({"count": 4}, LayerError, "between 1 and 3"),
        ({"layer": "feature"}, LayerError, "features"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_sentence(
    change: dict[str, object], error: type[Exception], message: str
) -> None:
    images, truth = scenes()
    given = {"layer": "features", "class_index": 1, "taken_for": 2, "count": 1, **change}
    with pytest.raises(error, match=message) as raised:
        scale_channels(Net(), images, truth, **given)  # type: ignore[arg-type]
    assert str(raised.value).endswith((".", "?"))
