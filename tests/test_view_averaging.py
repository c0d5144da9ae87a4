"""Views of an image: the same as albumentations gives, explained for the same pixels."""

from __future__ import annotations

from typing import Any

import albumentations as A
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.networks import UNet, UNet3d, seeded
from unetcam import UNetCAM
from unetcam.errors import DataError, TargetError
from unetcam.targets import (
    ClassScore,
    Contrast,
    FalseNegatives,
    Pixel,
    PredictedRegion,
    Region,
    Target,
    TruthRegion,
)
from unetcam.view_averaging import View, views

IMAGES = torch.rand(2, 1, 32, 48, generator=torch.manual_seed(6))
MASK = torch.zeros(32, 48, dtype=torch.bool)
MASK[3:14, 20:44] = True


def drawn(transform: Any, image: np.ndarray, key: str = "image") -> set[bytes]:
    """All that albumentations makes of an image, found by drawing often."""
    found = set()
    for seed in range(2000 if isinstance(transform, A.CubicSymmetry) else 200):
        made = A.Compose([transform], seed=seed)(**{key: image})[key]
        found.add(np.ascontiguousarray(made).tobytes())
    return found


@pytest.mark.parametrize(
    ("transform", "count"),
    [
        (A.HorizontalFlip(), 2),
        (A.VerticalFlip(), 2),
        (A.Transpose(), 2),
        (A.RandomRotate90(), 4),
        (A.D4(), 8),
    ],
)
def test_views_are_what_albumentations_can_give(transform: Any, count: int) -> None:
    image = np.arange(15, dtype=np.uint8).reshape(5, 3)
    tensor = torch.from_numpy(image)[None, None]
    found = views(transform, (5, 3))
    assert found[0] == View.plain((5, 3))
    assert {view.of(tensor).numpy().tobytes() for view in found} == drawn(transform, image)
    assert len(found) == count


def test_views_of_a_volume_are_what_albumentations_can_give() -> None:
    volume = np.arange(27, dtype=np.uint8).reshape(3, 3, 3)
    tensor = torch.from_numpy(volume)[None, None]
    found = {view.of(tensor).numpy().tobytes() for view in views(A.CubicSymmetry(), (3, 3, 3))}
    assert found == drawn(A.CubicSymmetry(), volume, key="volume")
    assert len(found) == 48
    flat = [view.of(tensor)[0, 0] for view in views(A.HorizontalFlip(), (3, 3, 3))]
    assert torch.equal(flat[1], flat[0].flip(-1))


def test_scaled_views_are_those_of_albumentations() -> None:
    """Bilinear between pixel centres, as cv2.INTER_LINEAR; float32, 1e-5."""
    image = np.random.default_rng(0).random((20, 30), np.float32)
    tensor = torch.from_numpy(image)[None, None]
    for transform in (A.Resize(24, 17), A.RandomScale((0.5, 0.5), p=1)):
        view = views(transform, (20, 30))[1]
        made = transform(image=image)["image"]
        torch.testing.assert_close(
            view.of(tensor)[0, 0], torch.from_numpy(made), rtol=1e-5, atol=1e-5
        )
    assert [view.size for view in views(A.RandomScale((-0.5, 1)), (20, 30))] == [
        (20, 30),
        (10, 15),
        (40, 60),
    ]


@given(st.data())
def test_a_turn_is_undone_to_the_bit(data: st.DataObject) -> None:
    dims = data.draw(st.integers(2, 3))
    size = data.draw(st.lists(st.integers(1, 5), min_size=dims, max_size=dims))
    view = View.plain(size)
    for _ in range(data.draw(st.integers(1, 3))):
        order = data.draw(st.permutations(range(dims)))
        view = view.turned(order, data.draw(st.lists(st.booleans(), min_size=dims, max_size=dims)))
    image = torch.rand(2, 1, *size)
    turned = view.of(image)
    assert tuple(turned.shape[2:]) == view.size
    assert torch.equal(view.back(turned, size), image)


def test_transforms_are_combined_and_none_is_explained_twice() -> None:
    assert len(views([A.HorizontalFlip(), A.VerticalFlip()], (8, 8))) == 4
    assert len(views(A.Compose([A.D4(), A.Sequential([A.Transpose()])]), (8, 8))) == 8
    assert len(views([A.RandomRotate90(), A.Resize(4, 4)], (8, 6))) == 8
    assert len(views([A.Transpose(), A.Resize(4, 4)], (4, 4))) == 2
    assert views([], (8, 8)) == (View.plain((8, 8)),)


TURNS = {
    "horizontal": (A.HorizontalFlip(p=1), lambda x: x.flip(-1)),
    "vertical": (A.VerticalFlip(), lambda x: x.flip(-2)),
    "transpose": (A.Transpose(), lambda x: x.transpose(-1, -2)),
}


@pytest.mark.parametrize("name", TURNS)
@pytest.mark.parametrize(
    "method", ["gradcam", "hirescam", "layercam", "eigencam", "scorecam", "mask-prior"]
)
def test_image_and_target_are_turned_alike(name: str, method: str) -> None:
    """The network is not symmetric, and the reference turns mask and pixel by hand (float64)."""
    transform, turn = TURNS[name]
    cam = UNetCAM(seeded(UNet(1, 3)).double(), method=method)
    images = IMAGES.double()
    truth = torch.randint(0, 3, (2, 32, 48), generator=torch.manual_seed(1))
    at = torch.zeros(32, 48)
    at[4, 31] = 1
    ((y, x),) = turn(at).nonzero().tolist()
    here: list[Target] = [
        ClassScore(0),
        Region(1, MASK),
        TruthRegion(2, truth),
        Pixel(1, y=4, x=31),
        FalseNegatives(1, truth),
        Contrast(1, truth, within=MASK),
    ]
    there = [
        ClassScore(0),
        Region(1, turn(MASK)),
        TruthRegion(2, turn(truth)),
        Pixel(1, y=y, x=x),
        FalseNegatives(1, turn(truth)),
        Contrast(1, turn(truth), within=turn(MASK)),
    ]
    result = cam(images, here, augment=[transform])
    plain, turned = cam(images, here), cam(turn(images), there)
    for layer in plain.layers:
        both = torch.stack([plain[layer], turn(turned[layer])])
        peak = float(both.max())
        tolerance = {"rtol": 1e-9, "atol": 1e-12 * peak}
        torch.testing.assert_close(result[layer], both.mean(dim=0), **tolerance)
        assert result.spread is not None
        torch.testing.assert_close(
            result.spread[layer], both.std(dim=0, correction=0), rtol=1e-6, atol=1e-9 * peak
        )
        assert (result.spread[layer].amax(dim=(2, 3)) > 0).any()
    torch.testing.assert_close(result.logits, (plain.logits + turn(turned.logits)) / 2)


class Pointwise(nn.Module):
    """No pixel sees another, so that a turned image has turned maps."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 4, 1), nn.Conv2d(4, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).relu())


@pytest.mark.parametrize("method", ["gradcam", "hirescam"])
def test_an_equivariant_network_gives_the_plain_map_and_no_spread(method: str) -> None:
    cam = UNetCAM(seeded(Pointwise()).double(), ["first"], method)
    wanted = [ClassScore(1), Region(0, MASK), Pixel(2, y=1, x=40)]
    plain, result = (cam(IMAGES.double(), wanted, augment=one) for one in (None, A.D4()))
    assert plain.spread is None
    torch.testing.assert_close(result["first"], plain["first"], rtol=1e-10, atol=1e-14)
    assert result.spread is not None
    assert float(result.spread["first"].max()) < 1e-9 * float(plain["first"].max())


def test_by_hand() -> None:
    """A logit looks at its left neighbour: A = x, z(x) = A(x - 1), and the flip looks right.

    The gradient of the pixel's score is one at its neighbour, so the HiResCAM map of column 2 is
    A at column 1, and from the flipped image A at column 3.
    """
    model = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.Conv2d(1, 2, (1, 3), padding=(0, 1)))
    with torch.no_grad():
        model[0].weight.fill_(1)
        model[1].weight.copy_(torch.tensor([1.0, 0.0, 0.0]).expand(2, 1, 1, 3))
        model[1].bias.zero_()
    image = torch.tensor([[[[1.0, 2.0, 3.0, 4.0]]]])
    result = UNetCAM(model, ["0"], "hirescam")(
        image, Pixel(1, y=0, x=2), augment=A.HorizontalFlip()
    )
    assert result["0"].flatten().tolist() == [0, 1, 0, 2]
    assert result.spread is not None
    assert result.spread["0"].flatten().tolist() == [0, 1, 0, 2]
    assert result.logits[0, 1, 0].tolist() == [1, 2, 3, 1.5]


def test_a_region_that_exists_in_some_views_is_averaged_over_those() -> None:
    """The class of a pixel is predicted from its left, so the last column's never from a flip."""
    model = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.Conv2d(1, 2, (1, 3), padding=(0, 1)))
    with torch.no_grad():
        model[0].weight.fill_(1)
        model[1].weight.copy_(torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]).view(2, 1, 1, 3))
        model[1].bias.copy_(torch.tensor([0.5, 0.0]))
    cam = UNetCAM(model, ["0"], "hirescam")
    images = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]).view(2, 1, 1, 3)
    result = cam(images, PredictedRegion(1), augment=A.HorizontalFlip())
    assert result["0"][0].flatten().tolist() == [1, 0, 0]  # predicted at column 1; never flipped
    assert result.spread is not None
    assert result.spread["0"][0].flatten().tolist() == [0, 0, 0]
    assert result["0"][1].isnan().all()
    assert result.spread["0"][1].isnan().all()


def test_scales_come_back_to_the_layers_own_size() -> None:
    cam = UNetCAM(seeded(UNet(1, 3)))
    plain = cam(IMAGES, Region(1, MASK))
    result = cam(IMAGES, Region(1, MASK), augment=[A.RandomScale((-0.5, 1)), A.Transpose()])
    assert result.logits.shape == plain.logits.shape
    for layer in plain.layers:
        assert result[layer].shape == plain[layer].shape
        assert (result[layer] >= 0).all()


@pytest.mark.parametrize("sign", ["negative", "signed"])
def test_evidence_of_either_sign(sign: str) -> None:
    cam = UNetCAM(seeded(UNet(1, 3)).double(), ["up3"], sign=sign)
    images = IMAGES.double()
    result = cam(images, Region(1, MASK), augment=A.HorizontalFlip())
    plain = cam(images, Region(1, MASK))
    turned = cam(images.flip(-1), Region(1, MASK.flip(-1)))
    torch.testing.assert_close(result["up3"], (plain["up3"] + turned["up3"].flip(-1)) / 2)


class Squared(nn.Module):
    """Logits that are far from linear between pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 4, 1), nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x) ** 2)


def test_a_scaled_views_score_is_that_of_its_resized_logits() -> None:
    """Whose mean is another than that of the logits before; by one graph of it all (float64)."""
    model, image = seeded(Squared()).double(), IMAGES[:1, :, :6, :9].double()
    kept: list[Tensor] = []
    hook = model.first.register_forward_hook(lambda module, args, out: kept.append(out))
    logits = model(F.interpolate(image, size=(9, 6), mode="bilinear", align_corners=False))
    hook.remove()
    back = F.interpolate(logits, size=(6, 9), mode="bilinear", align_corners=False)
    (gradient,) = torch.autograd.grad(back[0, 1].mean(), kept[0])
    products = (gradient * kept[0].detach()).sum(dim=1, keepdim=True).relu()
    scaled = F.interpolate(products, size=(6, 9), mode="bilinear", align_corners=False)
    cam = UNetCAM(model, ["first"], "hirescam")
    plain = cam(image, ClassScore(1))["first"]
    result = cam(image, ClassScore(1), augment=A.Resize(9, 6))["first"]
    torch.testing.assert_close(result, (plain + scaled) / 2, rtol=1e-9, atol=1e-12)


def test_volumes() -> None:
    cam = UNetCAM(seeded(UNet3d()).double())
    volume = torch.rand(1, 1, 8, 8, 16, dtype=torch.float64, generator=torch.manual_seed(2))
    mask = torch.zeros(8, 8, 16)
    mask[:3, 2:, 5:9] = 1
    result = cam(volume, Region(1, mask), augment=A.VerticalFlip())
    turned = cam(volume.flip(3), Region(1, mask.flip(1)))
    plain = cam(volume, Region(1, mask))
    for layer in plain.layers:
        expected = (plain[layer] + turned[layer].flip(3)) / 2
        torch.testing.assert_close(result[layer], expected)


def test_the_spread_is_resized_and_scaled_with_the_maps() -> None:
    result = UNetCAM(seeded(UNet(1, 3)))(IMAGES, augment=A.HorizontalFlip())
    ready = result.resized().scaled(by="image")
    assert result.spread is not None
    assert ready.spread is not None
    for layer in result.layers:
        assert ready.spread[layer].shape == ready[layer].shape
    peak = max(float(maps[0].max()) for maps in result.resized().maps.values())
    torch.testing.assert_close(ready.spread["up4"][0] * peak, result.spread["up4"][0])


@pytest.mark.parametrize(
    "transform", [A.Rotate(), A.RandomBrightnessContrast(), A.CubicSymmetry(), A.OneOf([A.D4()])]
)
def test_what_has_no_inverse_is_refused_by_name(transform: Any) -> None:
    with pytest.raises(DataError, match=rf"no inverse of {type(transform).__name__} for 2 spatial"):
        UNetCAM(seeded(Pointwise()), ["first"])(IMAGES, augment=[A.HorizontalFlip(), transform])


def test_inside_inference_mode_and_from_training() -> None:
    model = seeded(UNet(1, 3)).train()
    cam = UNetCAM(model)
    outside = cam(IMAGES, augment=A.HorizontalFlip())
    with torch.inference_mode():
        inside = cam(IMAGES.clone(), augment=A.HorizontalFlip())
    assert model.training
    for layer in outside.layers:
        torch.testing.assert_close(inside[layer], outside[layer])


class TwoInputs(nn.Module):
    """An image, a second map, and a number for each image."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 3, 1)

    def forward(self, image: Tensor, depth: Tensor, age: Tensor) -> Tensor:
        depth = F.interpolate(depth, size=image.shape[2:])
        seen = self.first(torch.cat([image, depth], dim=1))
        return self.second((seen + age.view(-1, 1, 1, 1)).relu())


def test_all_maps_that_a_model_is_given_are_turned() -> None:
    cam = UNetCAM(seeded(TwoInputs()), ["first"])
    depth, age = torch.rand(2, 1, 32, 48), torch.rand(2, 1)
    result = cam((IMAGES, depth, age), Region(1, MASK), augment=A.VerticalFlip())
    plain = cam((IMAGES, depth, age), Region(1, MASK))
    turned = cam((IMAGES.flip(-2), depth.flip(-2), age), Region(1, MASK.flip(-2)))
    expected = (plain["first"] + turned["first"].flip(-2)) / 2
    torch.testing.assert_close(result["first"], expected)
    with pytest.raises(DataError, match=r"and one has the size \(16, 24\): resize it"):
        cam((IMAGES, depth[..., ::2, ::2], age), augment=A.VerticalFlip())


def test_what_is_no_transform_is_refused() -> None:
    with pytest.raises(DataError, match="no inverse of function"):
        views(lambda image: image, (8, 8))
    with pytest.raises(TargetError, match="is empty for image 0"):
        UNetCAM(seeded(Pointwise()), ["first"])(
            IMAGES, Region(0, torch.zeros(32, 48)), augment=A.HorizontalFlip()
        )
