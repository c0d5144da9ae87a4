"""What leaves a network: probabilities, several outputs, and what happens to logits afterwards."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.networks import UNet, seeded
from unetcam import UNetCAM, find_layers, targets
from unetcam.errors import ModelError
from unetcam.models import LoadedModel

IMAGES = torch.rand(2, 1, 32, 32, generator=torch.manual_seed(7))
DECODER = ("net.up1", "net.up2", "net.up3", "net.up4")


class Ends(nn.Module):
    """A U-Net with something done to its logits."""

    def __init__(self, end: Callable[..., Any], classes: int = 3) -> None:
        super().__init__()
        self.net, self.end = seeded(UNet(1, classes)), end
        self.temperature = nn.Parameter(torch.tensor([2.0]))
        self.second = nn.Conv2d(1, classes, 1)

    def forward(self, x: Tensor) -> Any:
        return self.end(self, self.net(x), x)


def same(got: Any, expected: Any, prefix: str = "net.") -> None:
    torch.testing.assert_close(got.logits, expected.logits, rtol=1e-5, atol=1e-6)
    for layer in expected.layers:
        torch.testing.assert_close(got[prefix + layer], expected[layer], rtol=1e-4, atol=1e-8)


EXACT: dict[str, tuple[str, int, Callable[..., Any]]] = {
    "softmax": ("softmax", 3, lambda n, o, x: o.softmax(1)),
    "Softmax2d": ("softmax", 3, lambda n, o, x: nn.Softmax2d()(o)),
    "log_softmax": ("log_softmax", 3, lambda n, o, x: F.log_softmax(o, dim=1)),
    "in a dict": ("softmax", 3, lambda n, o, x: {"out": torch.softmax(o, 1), "aux": x.mean()}),
    "cropped": ("softmax", 3, lambda n, o, x: F.pad(o, [2] * 4).softmax(1)[..., 2:-2, 2:-2]),
    "channels last": ("softmax", 3, lambda n, o, x: o.permute(0, 2, 3, 1).softmax(-1)),
    "sigmoid": ("sigmoid", 1, lambda n, o, x: o.sigmoid()),
    "in place": ("sigmoid", 1, lambda n, o, x: o.sigmoid_()),
    "squeezed": ("sigmoid", 1, lambda n, o, x: torch.sigmoid(o).squeeze(1)),
    "class by class": (
        "sigmoid",
        3,
        lambda n, o, x: torch.cat([o[:, i : i + 1].sigmoid() for i in range(3)], dim=1),
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:The network ends in a sigmoid")
@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("method", ["gradcam", "rise"])
def test_what_enters_a_final_activation_is_explained(name: str, method: str) -> None:
    kind, classes, end = EXACT[name]
    model = Ends(end, classes)
    loaded = LoadedModel.of(model, IMAGES)
    assert loaded.output_kind == kind
    assert loaded.output_sentence is not None
    assert loaded.table.decoder == DECODER
    layers = ["up4"]
    expected = UNetCAM(model.net, layers, method, head=loaded.head)(IMAGES)
    same(UNetCAM(loaded, ["net.up4"], method)(IMAGES), expected)
    torch.testing.assert_close(loaded.logits(IMAGES), expected.logits)


BY_VALUE: dict[str, tuple[str, int, Callable[..., Any]]] = {
    "mean of two": (
        "softmax", 3, lambda n, o, x: (o.softmax(1) + (0.5 * o).softmax(1)) / 2
    ),
    "enlarged": (
        "softmax", 3, lambda n, o, x: F.interpolate(o.softmax(1), scale_factor=2, mode="bilinear")
    ),
    "masked": ("sigmoid", 1, lambda n, o, x: o.sigmoid() * (x > 0.1).float()),
    "turned over": ("sigmoid", 1, lambda n, o, x: 1 - o.sigmoid()),
}  # fmt: skip


@pytest.mark.parametrize("name", BY_VALUE)
def test_probabilities_are_known_by_their_values(name: str) -> None:
    kind, classes, end = BY_VALUE[name]
    model = Ends(end, classes)
    loaded = LoadedModel.of(model, IMAGES)
    assert loaded.output_kind == kind
    probabilities, logits = model.eval()(IMAGES), loaded.logits(IMAGES)
    again = logits.softmax(1) if kind == "softmax" else logits.sigmoid()
    torch.testing.assert_close(again, probabilities, rtol=1e-4, atol=1e-6)
    result = UNetCAM(loaded)(IMAGES)
    assert all(torch.isfinite(maps).all() for maps in result.maps.values())


def test_logits_that_happen_to_lie_within_zero_and_one_are_logits() -> None:
    model = Ends(lambda n, o, x: 0.001 * o + 0.5, classes=1)
    assert LoadedModel.of(model, IMAGES).output_kind == "logits"
    gated = Ends(lambda n, o, x: 0.5 + 0.001 * o * x.mean().sigmoid(), classes=1)
    assert LoadedModel.of(gated, IMAGES).output_kind == "logits"


def test_several_sigmoids_are_read_class_by_class_and_said_to_be() -> None:
    model = Ends(lambda n, o, x: o.sigmoid())
    with pytest.warns(UserWarning, match="each on its own"):
        result = UNetCAM(model)(IMAGES)
    assert result.prediction.dtype == torch.bool
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert UNetCAM(Ends(lambda n, o, x: o.softmax(1)))(IMAGES).prediction.dtype == torch.int64


def test_a_tiled_image_and_a_field_are_those_of_the_logits() -> None:
    model = Ends(lambda n, o, x: o.softmax(1))
    image = IMAGES[:1]
    whole, plain = UNetCAM(model, ["net.up4"]), UNetCAM(model.net, ["up4"])
    same(whole.tiled(image, 16, 8), plain.tiled(image, 16, 8))
    torch.testing.assert_close(whole.field(image).derivative, plain.field(image).derivative)


AFTERWARDS: dict[str, Callable[..., Any]] = {
    "learned temperature": lambda n, o, x: o / n.temperature,
    "residual of the image": lambda n, o, x: o + x,
    "a convolution of the image first": lambda n, o, x: n.second(x) + o,
    "a score for each image": lambda n, o, x: o + n.second(x).mean((2, 3), keepdim=True),
    "clamped and enlarged": lambda n, o, x: F.interpolate(o.clamp(-9, 9), scale_factor=2),
    "the larger of two heads": lambda n, o, x: torch.maximum(o, n.second(x)),
}


@pytest.mark.parametrize("name", AFTERWARDS)
def test_the_decoder_is_found_whatever_happens_to_the_logits(name: str) -> None:
    model = Ends(AFTERWARDS[name])
    assert find_layers(model, IMAGES).decoder == DECODER


SEVERAL: dict[str, Callable[..., Any]] = {
    "a coarse map that is refined": lambda n, o, x: (o, n.refine(o)),
    "hidden states": lambda n, o, x: {
        "hidden": [h := n.first(x), k := h.relu()],
        "out": n.refine(k),
    },
    "larger features": lambda n, o, x: (h := n.first(x), F.avg_pool2d(n.refine(h), 2)),
}


@pytest.mark.parametrize("name", SEVERAL)
def test_an_output_that_others_are_learned_from_is_no_class_map(name: str) -> None:
    model = Ends(SEVERAL[name])
    model.refine, model.first = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(1, 3, 3, padding=1)
    assert LoadedModel.of(model, IMAGES).classes == 4


def test_of_outputs_that_nothing_tells_apart_it_is_said_which_one_was_taken() -> None:
    model = Ends(lambda n, o, x: (o, n.embed(x)))
    model.embed = seeded(UNet(1, 7))
    with pytest.warns(UserWarning, match=r"the one of 3 channels .* others have 7"):
        LoadedModel.of(model, IMAGES)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert LoadedModel.of(model, IMAGES, output=lambda out: out[1]).classes == 7


def test_logits_may_have_their_channels_last_or_none_at_all() -> None:
    last = Ends(lambda n, o, x: o.permute(0, 2, 3, 1))
    same(UNetCAM(last, ["net.up4"])(IMAGES), UNetCAM(last.net, ["up4"])(IMAGES))
    flat = Ends(lambda n, o, x: o.squeeze(1), classes=1)
    same(UNetCAM(flat, ["net.up4"])(IMAGES), UNetCAM(flat.net, ["up4"])(IMAGES))
    tokens = Ends(lambda n, o, x: o.flatten(2).transpose(1, 2))
    same(UNetCAM(tokens, ["net.up4"])(IMAGES), UNetCAM(tokens.net, ["up4"])(IMAGES))


def test_class_indices_are_refused_with_the_remedy() -> None:
    with pytest.raises(ModelError, match="without the argmax"):
        UNetCAM(Ends(lambda n, o, x: o.argmax(1)))(IMAGES)


def test_a_model_that_takes_one_size_of_batch_is_traced_on_it() -> None:
    class Fixed(Ends):
        def forward(self, x: Tensor) -> Any:
            return super().forward(x.reshape(2, 1, 32, 32))

    model = Fixed(lambda n, o, x: o)
    loaded = LoadedModel.of(model, IMAGES)
    assert loaded.batch_size == 2
    same(UNetCAM(loaded)(IMAGES), UNetCAM(model.net)(IMAGES))
    assert LoadedModel.of(Ends(lambda n, o, x: o), IMAGES).batch_size is None


def test_a_probability_target_means_the_same_with_and_without_the_softmax() -> None:
    score = [targets.ClassScore(1, on="probability")]
    model = Ends(lambda n, o, x: o.softmax(1))
    same(UNetCAM(model, ["net.up4"])(IMAGES, score), UNetCAM(model.net, ["up4"])(IMAGES, score))


class Fickle(nn.Module):
    """Ends in sigmoids, and returns something else from its second run on."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.runs = nn.Conv2d(1, 3, 1), 0

    def forward(self, x: Tensor) -> Tensor:
        self.runs += 1
        channels = 3 if self.runs < 2 else 2
        return self.conv(x).sigmoid()[:, :channels]


def test_what_is_wrong_with_an_output_is_not_said_to_be_the_forwards_fault() -> None:
    images = torch.rand(1, 1, 8, 8)
    with pytest.warns(UserWarning, match="ends in a sigmoid"):
        loaded = LoadedModel.of(Fickle(), images)
    with pytest.raises(ModelError, match="is not what it returned before"):
        loaded.logits(images)
