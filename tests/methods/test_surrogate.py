"""LIME and Kernel SHAP: exact where the network is additive, captum's own otherwise."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from captum._utils.models.linear_model import SkLearnLinearRegression
from captum.attr import KernelShap, Lime
from torch import Tensor, nn

from tests.methods.harness import IMAGES, TARGETS, network, quick
from tests.methods.test_perturbation import Additive
from unetcam import UNetCAM
from unetcam.errors import UnetcamError
from unetcam.methods.surrogate import LIME, KernelSHAP, _nearness, superpixels
from unetcam.targets import ClassScore


def blocks() -> Tensor:
    """An image of 16 squares, each of one value."""
    values = torch.randperm(16, generator=torch.Generator().manual_seed(3)).float().view(1, 1, 4, 4)
    return values.repeat_interleave(8, dim=2).repeat_interleave(8, dim=3)


@pytest.mark.parametrize("method", [LIME(samples=60, superpixels=16), KernelSHAP(60, 16)])
def test_of_an_additive_network_each_superpixel_has_its_own_sum(method: LIME | KernelSHAP) -> None:
    """To 1e-3 of the largest: the fit is in single precision, with weights up to 1e6."""
    weights = torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    image = blocks()
    maps = UNetCAM(Additive(weights), ["same"], method)(image, ClassScore(1))["same"][0, 0]
    segments = superpixels(image[0], 16)
    parts = (image * weights)[0, 0]
    sums = torch.stack([parts[segments == one].sum() for one in segments.unique()])
    expected = torch.relu(sums)[segments]
    assert len(sums) > 8
    torch.testing.assert_close(maps, expected, rtol=0, atol=1e-3 * float(expected.max()))


@pytest.mark.parametrize("name", ["lime", "kernelshap"])
def test_each_image_and_target_is_captums(name: str) -> None:
    """One call of captum for each, that runs the network anew; to 1e-4 of the largest."""
    model, layers = network(name)
    method = quick(name)
    ours = UNetCAM(model, layers, method)(IMAGES, TARGETS)["up4"]
    with torch.no_grad():
        reference = model(IMAGES)
    for at, target in ((0, 0), (1, 1), (1, 2)):

        def score(images: Tensor, at: int = at, target: int = target) -> Tensor:
            with torch.no_grad():
                logits = model(images)
            whole = reference.expand(len(images), *reference.shape).clone()
            whole[:, at] = logits
            values = [TARGETS[target].score(one, reference).value[at] for one in whole]
            return torch.stack(values)

        peer: Any
        if name == "lime":
            peer = Lime(score, SkLearnLinearRegression(), similarity_func=_nearness)
        else:
            peer = KernelShap(score)
        segments = superpixels(IMAGES[at], method.superpixels)
        torch.manual_seed(method.seed)
        theirs = peer.attribute(
            IMAGES[at : at + 1], feature_mask=segments[None, None], n_samples=method.samples
        )
        expected = torch.relu(theirs[0, 0]).float()
        torch.testing.assert_close(
            ours[at, target], expected, rtol=0, atol=1e-4 * float(expected.max())
        )


def test_all_targets_share_the_forwards() -> None:
    model, layers = network("lime")
    cam = UNetCAM(model, layers, quick("lime"))
    cam(IMAGES, TARGETS)  # which may have to see first what the layers give
    seen: list[int] = []
    model.register_forward_hook(lambda module, args, out: seen.append(len(out)))
    cam(IMAGES, TARGETS)
    assert sum(seen) == len(IMAGES) * (1 + quick("lime").samples)


def test_superpixels_are_numbered_without_a_gap() -> None:
    image = torch.rand(3, 40, 30, generator=torch.Generator().manual_seed(0))
    segments = superpixels(image, 20)
    assert segments.shape == (40, 30)
    assert segments.unique().tolist() == list(range(int(segments.max()) + 1))
    assert 5 < segments.max() < 40


def test_an_image_of_one_superpixel_is_refused() -> None:
    with pytest.raises(UnetcamError, match="a single superpixel in image 0"):
        UNetCAM(nn.Sequential(nn.Conv2d(1, 2, 1), nn.Conv2d(2, 2, 1)), ["0"], LIME(9, 1))(
            torch.rand(1, 1, 8, 8)
        )


@pytest.mark.parametrize("name", ["lime", "kernelshap"])
@pytest.mark.parametrize("missing", ["captum", "sklearn"])
def test_what_is_not_installed_is_named(
    name: str, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(UnetcamError, match=rf"needs {missing}: pip install 'unetcam\[perturb\]'"):
        UNetCAM(network(name)[0], method=name)


@pytest.mark.parametrize("wrong", [{"samples": 2}, {"superpixels": 0}])
def test_settings_that_make_no_fit_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="samples must be at least 3"):
        LIME(**wrong)
