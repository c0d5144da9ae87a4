"""The methods' formulas, by hand and by finite differences."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.networks import UNet, seeded
from unetcam import UNetCAM, methods
from unetcam.errors import UnetcamError
from unetcam.targets import ClassScore, Pixel, Region


class TwoLayers(nn.Module):
    """Small enough to be worked on paper: A = (x, 2 - x), logits = (A0 + 2 A1, 3 A0 - A1)."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 2, 1)
        self.second = nn.Conv2d(2, 2, 1, bias=False)
        with torch.no_grad():
            self.first.weight.copy_(torch.tensor([1.0, -1.0]).view(2, 1, 1, 1))
            self.first.bias.copy_(torch.tensor([0.0, 2.0]))
            self.second.weight.copy_(torch.tensor([[1.0, 2.0], [3.0, -1.0]]).view(2, 2, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))


IMAGE = torch.tensor([[[[0.0, 1.0], [2.0, 4.0]]]])  # A0 = 0 1 2 4, A1 = 2 1 0 -2


def explain(method: str, target: ClassScore | Region | Pixel) -> Tensor:
    return UNetCAM(TwoLayers(), ["first"], method)(IMAGE, [target])["first"][0, 0]


def test_gradcam_by_hand() -> None:
    # ds/dA = w_k / 4 everywhere; its mean is w_k / 4; the map is relu(logit / 4).
    expected = torch.tensor([[4.0, 3.0], [2.0, 0.0]]) / 4
    torch.testing.assert_close(explain("gradcam", ClassScore(0)), expected)
    expected = torch.tensor([[0.0, 2.0], [6.0, 14.0]]) / 4
    torch.testing.assert_close(explain("gradcam", ClassScore(1)), expected)


def test_hirescam_by_hand_keeps_to_the_region() -> None:
    # Only the last pixel's logit counts, so only there is a gradient: 3 * 4 - 1 * -2 = 14.
    expected = torch.tensor([[0.0, 0.0], [0.0, 14.0]])
    torch.testing.assert_close(explain("hirescam", Pixel(1, y=1, x=1)), expected)


def test_gradcam_by_hand_spreads_a_pixel_over_the_image() -> None:
    # The mean gradient is w_k / 4 again: Grad-CAM does not know where its gradient came from.
    torch.testing.assert_close(
        explain("gradcam", Pixel(1, y=1, x=1)), explain("gradcam", ClassScore(1))
    )


def test_layercam_by_hand_drops_what_speaks_against() -> None:
    # relu(G) = (3, 0) / 4, so the map is 3/4 A0.
    expected = torch.tensor([[0.0, 3.0], [6.0, 12.0]]) / 4
    torch.testing.assert_close(explain("layercam", ClassScore(1)), expected)


def test_gradcam_plus_plus_by_hand() -> None:
    # G = (3, -1) / 4; sum A0 = 7; alpha = 1 / (2 + 7 * 3/4) = 4/29; w0 = 4 * 3/4 * 4/29 = 12/29.
    expected = torch.tensor([[0.0, 1.0], [2.0, 4.0]]) * 12 / 29
    torch.testing.assert_close(explain("gradcam++", ClassScore(1)), expected)


def test_gradcam_plus_plus_survives_a_pole() -> None:
    activation = torch.tensor([[[[-4.0, 0.0]]]])  # 2 + sum(A) G = 2 - 4 * 0.5 = 0
    weights = methods.get("gradcam++").reduce(activation, torch.full((1, 1, 1, 2), 0.5))
    assert weights.tolist() == [[0.0]]


@pytest.mark.parametrize("layer", ["up1", "up4"])
def test_gradcam_weights_agree_with_finite_differences(layer: str) -> None:
    """A uniform shift of channel k moves the score by the sum of its gradient (float64, 1e-6)."""
    model = seeded(UNet(1, 3)).double()
    image = torch.rand(1, 1, 32, 32, dtype=torch.float64, generator=torch.manual_seed(3))
    target, step = ClassScore(2), 1e-6

    def score(channel: int, shift: float) -> float:
        def add(module: nn.Module, args: object, out: Tensor) -> Tensor:
            moved = out.clone()
            moved[:, channel] += shift
            return moved

        handle = model.get_submodule(layer).register_forward_hook(add)
        with torch.no_grad():
            value = target.score(model(image)).value.item()
        handle.remove()
        return value

    kept: list[Tensor] = []
    handle = model.get_submodule(layer).register_forward_hook(
        lambda module, args, out: kept.append(out.detach())
    )
    with torch.no_grad():
        model(image)
    handle.remove()
    (activation,) = kept
    weights = torch.tensor(
        [
            (score(k, step) - score(k, -step)) / (2 * step) / activation[0, k].numel()
            for k in range(activation.shape[1])
        ],
        dtype=torch.float64,
    )
    expected = torch.relu((weights.view(1, -1, 1, 1) * activation).sum(1))
    ours = UNetCAM(model, [layer])(image, [target])[layer][:, 0]
    torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-6 * float(expected.max()))


def test_one_weight_per_channel_and_one_per_pixel_agree_on_a_map_of_one_pixel() -> None:
    activation, gradient = torch.randn(2, 3, 5, 1, 1)
    maps = {}
    for name in ("gradcam", "hirescam"):
        method = methods.get(name)
        maps[name] = method.combine(activation, method.reduce(activation, gradient)[:, None])
    torch.testing.assert_close(maps["gradcam"], maps["hirescam"])


def test_an_unknown_method_names_the_nearest() -> None:
    with pytest.raises(UnetcamError, match="'grad-cam': did you mean gradcam"):
        UNetCAM(TwoLayers(), ["first"], "grad-cam")


def test_every_method_says_where_it_comes_from() -> None:
    for name in methods.names():
        method = methods.get(name)
        assert all((method.title, method.formula, method.paper, method.when))
