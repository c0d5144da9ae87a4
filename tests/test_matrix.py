"""Every method, on every network, with every kind of target."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.methods.harness import NAMES, quick
from tests.models.test_zoo import images, network
from tests.models.zoo import ZOO
from unetcam import UNetCAM
from unetcam import targets as T
from unetcam.errors import LayerError

#: Of several ways to make a network one each; the others are slow.
QUICK = ("A plain U-Net", "In three dimensions", "MONAI AttentionUnet, 2-D", "smp Unet")
#: Methods that ask for something that a network need not have, and say so.
PARTICULAR = {"cam", "attention"}
#: Run the part behind a layer once for each of its channels.
PER_CHANNEL = {"scorecam", "ablationcam"}


def mistaken(prediction: Tensor, classes: int) -> Tensor:
    """A truth of which the prediction gets a stripe and a corner wrong."""
    truth = prediction.clone()
    side = prediction.shape[-1]
    truth[..., side // 3 : side // 2] = (truth[..., side // 3 : side // 2] + 1) % classes
    truth[:, :2, :2] = (truth[:, :2, :2] + classes - 1) % classes
    truth[..., -1] = -1
    return truth


def margin(logits: Tensor) -> Tensor:
    best = logits.flatten(2).logsumexp(dim=2)
    return best.amax(dim=1)


def every_target(logits: Tensor) -> list[T.Target]:
    """One or more of each kind; class c is what most pixels are given."""
    classes = T.class_count(logits)
    prediction = T.predict(logits)
    c = int(prediction.flatten().mode().values)
    other = (c + 1) % classes
    truth = mistaken(prediction, classes)
    size = logits.shape[2:]
    middle = dict(zip(("z", "y", "x")[-len(size) :], [n // 2 for n in size], strict=True))
    box = {axis: (0, place + 1) for axis, place in middle.items()}
    mask = torch.zeros(size)
    mask[tuple(slice(0, n // 2 + 1) for n in size)] = 1
    return [
        *(T.ClassScore(c, on=on) for on in ("logits", "probability", "log_probability")),
        T.ClassScore(other),
        T.PredictedRegion(c),
        T.TruthRegion(c, truth),
        T.Region(other, mask),
        T.Pixel(c, **middle),
        T.Box(c, **box),
        T.Component(c),
        T.Band(c, width=2),
        T.FalsePositives(c, truth),
        T.FalseNegatives(other, truth),
        T.Confusion(other, c, truth),
        T.BoundaryErrors(c, truth),
        T.MissedComponents(other, truth),
        T.Contrast(c),
        T.Contrast(c, against=other),
        T.Contrast(c, truth, within=T.FalsePositives(c, truth)),
        T.Function(margin),
        T.PerImage([T.ClassScore(other), T.PredictedRegion(c)]),
    ]


@pytest.mark.parametrize(
    "name",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in sorted(ZOO)],
)
def test_every_method_explains_every_kind_of_target(name: str) -> None:
    entry = ZOO[name]
    model, inputs = network(name), images(entry, 2)
    logits = UNetCAM(model, list(entry.decoder)[-1:])(inputs).logits
    wanted = every_target(logits)
    refused = set()
    for method in [*NAMES, "smooth-gradcam"]:
        layers = list(entry.decoder)[-1:] if method in PER_CHANNEL else None
        cam = UNetCAM(model, layers, quick(method))
        try:
            result = cam(inputs, wanted)
        except LayerError:
            refused.add(method)
            continue
        defined = torch.stack([target.score(logits).defined for target in wanted], dim=1)
        assert defined.float().mean() > 0.5
        for layer, maps in result.maps.items():
            assert maps.shape[:2] == (2, len(wanted)), (method, layer)
            assert torch.equal(~maps.flatten(2).isnan().any(dim=2), defined), (method, layer)
            assert (maps.nan_to_num() >= 0).all(), (method, layer)
            assert torch.isfinite(maps[defined]).all(), (method, layer)
    assert refused <= PARTICULAR
    print(f"{name}: refused {', '.join(sorted(refused)) or 'nothing'}")
