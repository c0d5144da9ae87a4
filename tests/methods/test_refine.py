"""RefineCAM: by hand, against plain loops, and the maps that it empties."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.transform import resize
from torch import Tensor, nn

from tests.methods.harness import IMAGES, TARGETS, VOLUMES, network, network_3d
from unetcam import UNetCAM
from unetcam.errors import UnetcamError
from unetcam.methods.refine import RefineCAM, products
from unetcam.targets import ClassScore, PredictedRegion

DECODER = ["up1", "up2", "up3", "up4"]


@pytest.mark.parametrize("base", ["gradcam++", "layercam", "eigencam"])
def test_it_multiplies_the_scaled_maps_of_all_coarser_layers(base: str) -> None:
    """With scikit-image's bilinear enlargement, map by map (to 1e-5)."""
    model, _ = network("gradcam")
    plain = UNetCAM(model, DECODER, base)(IMAGES, TARGETS)
    ours = UNetCAM(model, DECODER, RefineCAM(base))(IMAGES, TARGETS)
    for depth, layer in enumerate(DECODER):
        size = plain[layer].shape[2:]
        for image in range(len(IMAGES)):
            for target in range(len(TARGETS)):
                product = np.ones(size)
                for coarser in DECODER[: depth + 1]:
                    one = plain[coarser][image, target].double().numpy()
                    one = one / one.max() if one.max() > 0 else one
                    product *= resize(one, size, order=1, mode="edge", anti_aliasing=False)
                np.testing.assert_allclose(ours[layer][image, target], product, atol=1e-5)


def test_the_order_in_which_layers_are_named_is_none_of_its_business() -> None:
    model, _ = network("gradcam")
    there, back = (
        UNetCAM(model, layers, "refinecam")(IMAGES, TARGETS) for layers in (DECODER, DECODER[::-1])
    )
    for layer in DECODER:
        torch.testing.assert_close(there[layer], back[layer], rtol=1e-5, atol=1e-7)


def test_one_layer_alone_is_the_bases_map_over_its_maximum() -> None:
    model, _ = network("gradcam")
    plain = UNetCAM(model, ["up3"], "gradcam++")(IMAGES, TARGETS).scaled(by="map")["up3"]
    torch.testing.assert_close(UNetCAM(model, ["up3"], "refinecam")(IMAGES, TARGETS)["up3"], plain)


class Apart(nn.Module):
    """Two layers of which each speaks of its own half of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.coarse, self.fine, self.head = nn.AvgPool2d(2), nn.Identity(), nn.Conv2d(2, 2, 1)
        with torch.no_grad():
            self.head.weight.copy_(torch.tensor([[1.0, 1.0], [-1.0, 1.0]]).view(2, 2, 1, 1))
            self.head.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        left = self.coarse(x[:, :1]).repeat_interleave(2, 2).repeat_interleave(2, 3)
        return self.head(torch.cat([left, self.fine(x[:, 1:])], dim=1))


def halves() -> Tensor:
    """An image whose layers are apart, and one whose layers meet."""
    images = torch.zeros(2, 2, 4, 8)
    images[:, 0, :, :2] = 1
    images[0, 1, :, 5:] = 1
    images[1, 1, :, :] = 1
    return images


def test_it_counts_the_maps_that_it_empties() -> None:
    """Class 0 needs both layers, which speak of other places in the first image; class 1 has no
    evidence in the coarse layer to begin with, so that its map is empty and not emptied."""
    result = UNetCAM(Apart(), ["coarse", "fine"], RefineCAM("layercam"))(halves())
    assert result.empty["fine"].tolist() == [[True, True], [False, True]]
    assert result.emptied["fine"].tolist() == [[True, False], [False, False]]
    assert not result.emptied["coarse"].any()
    assert UNetCAM(Apart(), ["coarse", "fine"], "layercam")(halves()).emptied == {}


def test_what_is_emptied_of_signed_maps_and_of_views() -> None:
    model, layers = Apart(), ["coarse", "fine"]
    against = UNetCAM(model, layers, RefineCAM("layercam"), sign="negative")(halves())
    signed = UNetCAM(model, layers, RefineCAM("layercam"), sign="signed")(halves())
    plain = UNetCAM(model, layers, RefineCAM("layercam"))(halves())
    torch.testing.assert_close(signed["fine"], plain["fine"] - against["fine"])
    both = plain.emptied["fine"] & against.emptied["fine"]
    assert torch.equal(signed.emptied["fine"], both)
    albumentations = pytest.importorskip("albumentations")
    views = UNetCAM(model, layers, RefineCAM("layercam"))(
        halves(), augment=albumentations.HorizontalFlip(p=1)
    )
    assert torch.equal(views.emptied["fine"], plain.emptied["fine"])


def test_an_absent_target_is_neither_empty_nor_emptied() -> None:
    model, _ = network("gradcam")
    with torch.no_grad():
        model.outc.bias[2] -= 1e3
    result = UNetCAM(model, DECODER, "refinecam")(IMAGES, [PredictedRegion(2), ClassScore(0)])
    for layer in DECODER:
        assert result[layer][:, 0].isnan().all()
        assert not result.emptied[layer][:, 0].any()


def test_volumes_are_multiplied_in_three_dimensions() -> None:
    model, _ = network_3d("gradcam")
    plain = UNetCAM(model, ["dec2", "dec1"], "gradcam++")(VOLUMES)
    ours = UNetCAM(model, ["dec2", "dec1"], "refinecam")(VOLUMES)
    expected, _ = products(plain.maps)
    torch.testing.assert_close(ours["dec1"], expected["dec1"])
    assert (ours["dec1"] <= plain.scaled(by="map")["dec1"] + 1e-6).all()


def test_an_unknown_base_names_the_nearest() -> None:
    with pytest.raises(UnetcamError, match="no method 'gradkam': did you mean gradcam"):
        RefineCAM("gradkam")
