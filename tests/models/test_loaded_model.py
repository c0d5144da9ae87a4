"""One look at a network serves everything that comes after it."""

from __future__ import annotations

from collections import UserDict
from pathlib import Path

import pytest
import torch
from torch import Tensor

import unetcam
from tests.engine.test_state import assert_same, state_of, training_network
from tests.networks import UNet, seeded
from tests.runs.factory import plan
from unetcam import UNetCAM, find_layers
from unetcam.errors import LayerError, ModelError
from unetcam.models import LoadedModel
from unetcam.runs import execute, prepare

IMAGES = torch.rand(2, 1, 32, 32, generator=torch.manual_seed(3))


class Counted(UNet):
    """Counts its forwards."""

    forwards = 0

    def forward(self, x: Tensor) -> Tensor:
        type(self).forwards += 1
        return super().forward(x)


def test_it_knows_what_one_look_shows() -> None:
    loaded = LoadedModel.of(seeded(UNet(1, 3)), IMAGES)
    assert (loaded.classes, loaded.channels, loaded.dims, loaded.stride) == (3, 1, 2, 16)
    assert loaded.table.decoder == ("up1", "up2", "up3", "up4")
    assert (loaded.output_kind, loaded.output_sentence, loaded.head) == ("logits", None, "softmax")
    assert LoadedModel.of(seeded(UNet(1, 1)), IMAGES).classes == 2
    assert LoadedModel.of(loaded) is loaded
    assert unetcam.load(loaded) is loaded


def test_a_report_on_one_image_costs_one_trace_and_one_explained_forward(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What random weights would give is asked for some images, in a forward of its own.
    monkeypatch.setattr("unetcam.runs.loop.null_sample", lambda count: [])
    spec = plan(tmp_path, 1).spec
    model = Counted(3, 3).eval()
    Counted.forwards = 0
    ready = prepare(spec.settled(layers=None, strides=None), model)
    assert Counted.forwards == 1
    execute(ready, tmp_path / "run")
    assert Counted.forwards == 2


def test_whatever_takes_a_network_takes_the_loaded_one_and_traces_no_more() -> None:
    loaded = LoadedModel.of(Counted(1, 3).eval(), IMAGES)
    Counted.forwards = 0
    table, cam = find_layers(loaded, IMAGES), UNetCAM(loaded)
    assert cam.layers == table.decoder == loaded.table.decoder
    assert Counted.forwards == 0
    result = cam(IMAGES)
    assert Counted.forwards == 1
    torch.testing.assert_close(loaded.logits(IMAGES), result.logits)
    assert Counted.forwards == 2


def test_logits_leave_the_model_and_the_images_as_found() -> None:
    model = training_network()
    before, images = state_of(model), IMAGES.clone()
    with torch.inference_mode():
        logits = LoadedModel.of(model).logits(images)
    assert_same(before, state_of(model))
    assert torch.equal(images, IMAGES)
    assert not logits.requires_grad


@pytest.mark.parametrize("inputs", [UserDict(x=IMAGES), {"x": IMAGES}, (IMAGES,)])
def test_inputs_may_be_any_mapping(inputs: object) -> None:
    model = seeded(UNet(1, 3))
    torch.testing.assert_close(
        LoadedModel.of(model).logits(inputs), LoadedModel.of(model).logits(IMAGES)
    )


def test_what_is_not_known_yet_is_said_to_be() -> None:
    loaded = LoadedModel.of(UNet(1, 3))
    assert "not looked at yet" in repr(loaded)
    with pytest.raises(LayerError, match="hasn't been looked at yet"):
        _ = loaded.table


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (torch.rand(2, 4, 32, 32), "takes images of 1 channels"),
        (torch.rand(2, 32, 32, 1), "channels seem to come last"),
        (torch.rand(1, 1, 8, 8), "forward fails on images of shape"),
        ((IMAGES, torch.zeros(2)), "takes 2 positional arguments"),
        ({"picture": IMAGES}, "unexpected keyword argument"),
    ],
)
def test_what_a_network_does_not_take_is_refused_in_a_sentence(images: object, words: str) -> None:
    for call in (UNetCAM(UNet(1, 3).eval()), LoadedModel.of(UNet(1, 3).eval()).logits):
        with pytest.raises(ModelError, match=words) as raised:
            call(images)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"layers": -1}, "layers=-1 is no layer"),
        ({"layers": [0]}, "A int given as a layer"),
        ({"layers": "layercam"}, "give it as method='layercam'"),
        ({"layers": "UP4"}, "did you mean 'up4'"),
        ({"output": "out"}, "is no function"),
    ],
)
def test_slips_of_the_hand_are_answered(options: dict[str, object], words: str) -> None:
    with pytest.raises((LayerError, ModelError), match=words):
        UNetCAM(UNet(1, 3), **options)  # type: ignore[arg-type]
