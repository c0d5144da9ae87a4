"""Every target from end to end: whole backwards, shortcuts, the region field and by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.networks import UNet, UNet3d, seeded
from unetcam import UNetCAM
from unetcam.targets import (
    Band,
    BoundaryErrors,
    Box,
    ClassScore,
    Component,
    Confusion,
    Contrast,
    FalseNegatives,
    FalsePositives,
    Function,
    MissedComponents,
    PerImage,
    Pixel,
    PredictedRegion,
    Region,
    Target,
    TruthRegion,
)

NETWORKS = {
    "2-D": (lambda: UNet(1, 3), (1, 32, 32), "up3"),
    "one channel": (lambda: UNet(1, 1), (1, 32, 32), "up4"),
    "3-D": (lambda: UNet3d(3), (1, 8, 12, 16), "dec2"),
}
DTYPES = [
    pytest.param(torch.float32, 1e-4, id="f32"),
    pytest.param(torch.float64, 1e-9, id="f64"),
]


def mean_odds(logits: Tensor) -> Tensor:
    return logits[:, -1].exp().flatten(1).mean(1)


def every_target(truth: Tensor, classes: int) -> list[Target]:
    """Of each kind some, on `truth`, (*spatial)."""
    size = tuple(truth.shape)
    low, one = dict.fromkeys("zyx"[-len(size) :], (1, 6)), dict.fromkeys("zyx"[-len(size) :], 3)
    last = classes - 1
    missed = FalseNegatives(1, truth)
    return [
        ClassScore(1, on="probability", head="sigmoid"),
        ClassScore(1, within=FalsePositives(0, truth)),
        PredictedRegion(1),
        PredictedRegion(last, head="sigmoid", on="log_probability"),
        TruthRegion(1, truth),
        Region(0, truth == 0, within=PredictedRegion(1)),
        Box(1, **low),
        Pixel(0, **one),
        Component(1),
        Component(1, of=TruthRegion(1, truth), index=1),
        Band(1, of=TruthRegion(1, truth), width=2),
        Band(0, side="outer"),
        FalsePositives(0, truth),
        FalsePositives(1, truth),
        missed,
        Confusion(1, 0, truth),
        BoundaryErrors(1, truth, width=2),
        MissedComponents(1, truth),
        Contrast(1),
        Contrast(0, 1, within=missed),
        Contrast(0, truth, within=FalsePositives(0, truth), on="log_probability"),
        Function(mean_odds),
        PerImage([Contrast(last, 0)]),
    ]


def setting(name: str, dtype: torch.dtype) -> tuple[nn.Module, Tensor, str, list[Target]]:
    make, size, layer = NETWORKS[name]
    model = seeded(make()).to(dtype)
    generator = torch.Generator().manual_seed(6)
    image = torch.rand(1, *size, generator=generator).to(dtype)
    with torch.no_grad():
        logits = model(image)
        head = model.outc if isinstance(model, UNet) else model.head
        head.bias -= logits.transpose(0, 1).flatten(1).mean(1)  # every class is predicted
    classes = max(2, logits.shape[1])
    truth = (torch.rand(size[1:], generator=generator) < 0.15).long()
    truth[:3] = -1
    return model, image, layer, every_target(truth, classes)


@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
@pytest.mark.parametrize("name", NETWORKS)
def test_shortcuts_and_the_field_change_no_targets_maps(
    name: str, dtype: torch.dtype, tolerance: float
) -> None:
    """Relative to each map's own scale: its weights times its activation, before cancellation."""
    model, image, layer, wanted = setting(name, dtype)
    whole = UNetCAM(model, [layer], shortcuts=False)(image, wanted)[layer][0]
    short = UNetCAM(model, [layer])(image, wanted)[layer][0]
    field = UNetCAM(model, [layer]).field(image)
    from_field = field.map(wanted)
    weights = torch.nan_to_num(field.weights(wanted))
    scale = (weights.abs() @ field.activation.flatten(1).abs()).amax(1)
    defined = []
    for index, expected in enumerate(whole):
        for ours in (short[index], from_field[index]):
            if expected.isnan().all():
                assert ours.isnan().all()
            else:
                assert (ours - expected).abs().max() <= tolerance * scale[index]
                defined.append(wanted[index].name)
    absent = {target.name for target in wanted} - set(defined)
    assert absent <= {"missed components of class 1"}


class ByHand(nn.Module):
    """A layer of two channels and a head of three classes, for Grad-CAM on paper."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Identity()
        self.head = nn.Conv2d(2, 3, 1, bias=False)
        with torch.no_grad():
            self.head.weight.copy_(
                torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]).view(3, 2, 1, 1)
            )

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x * 1.0))


@pytest.mark.parametrize(
    ("target", "weights"),
    [
        # A score's gradient is spread evenly over its region, and a weight is its mean over the
        # four pixels: the class's row of the head divided by four, whatever the region.
        (FalsePositives(2, [[0, 2], [0, 2]]), [0.25, 0.25]),
        (FalseNegatives(1, [[1, 2], [2, 2]]), [0.0, 0.25]),
        (Contrast(2, 0), [0.0, 0.25]),
        (Contrast(2, [[1, 2], [0, 2]]), [0.125, 0.125]),
        (Contrast(0, 1), [0.25, -0.25]),
        (Confusion(0, 2, [[0, 2], [0, 2]]), [0.25, 0.25]),
        (Component(2, of=[[1, 0], [1, 0]]), [0.25, 0.25]),
    ],
)
def test_maps_worked_by_hand(target: Target, weights: list[float]) -> None:
    image = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[4.0, 1.0], [2.0, 2.0]]]])
    model = ByHand()
    assert (model(image).argmax(1) == 2).all()
    expected = (weights[0] * image[0, 0] + weights[1] * image[0, 1]).relu()
    torch.testing.assert_close(UNetCAM(model, ["layer"])(image, target)["layer"][0, 0], expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_scored_in_single(dtype: torch.dtype) -> None:
    logits = torch.randn(1, 3, 8, 8, generator=torch.manual_seed(0)).to(dtype)
    truth = torch.randint(-1, 3, (8, 8), generator=torch.manual_seed(1))
    for target in every_target(truth, 3):
        target.check(logits)
        score = target.score(logits)
        if not isinstance(target, Function):
            assert score.value.dtype == torch.float32
            torch.testing.assert_close(score.value, target.score(logits.float()).value)
