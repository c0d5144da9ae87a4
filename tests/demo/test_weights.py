from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import jaccard_score

from unetcam.demo import (
    CLASSES,
    DEMO_STATISTICS,
    HELD_OUT_SLICES,
    TRAINING_SLICES,
    DemoUNet,
    demo_metadata,
    held_out_iou,
    load_demo_model,
    read_slices,
)
from unetcam.demo.weights import normalise


@pytest.fixture(scope="module")
def model() -> DemoUNet:
    return load_demo_model()


def test_loads_in_eval_mode_and_the_same_each_time(model: DemoUNet) -> None:
    assert not any(module.training for module in model.modules())
    again = load_demo_model().state_dict()
    for name, value in model.state_dict().items():
        assert torch.isfinite(value).all()
        assert torch.equal(value, again[name])


def test_held_out_iou_is_the_one_on_record(model: DemoUNet) -> None:
    recorded = demo_metadata()["held_out_iou"]
    assert list(recorded) == list(CLASSES)
    assert held_out_iou(model).tolist() == pytest.approx(list(recorded.values()), abs=1e-3)


def test_held_out_iou_is_good_enough_to_explain(model: DemoUNet) -> None:
    assert (held_out_iou(model) > torch.tensor([0.99, 0.7, 0.85, 0.88])).all()


def test_held_out_iou_agrees_with_scikit_learn(model: DemoUNet) -> None:
    slices = read_slices(range(90, 93))
    with torch.inference_mode():
        predicted = model(normalise(slices)).argmax(dim=1).numpy()
    expected = jaccard_score(slices.masks.ravel(), predicted.ravel(), average=None)
    np.testing.assert_allclose(held_out_iou(model, slices).numpy(), expected, atol=1e-6)


def test_record_tells_what_it_was_trained_on(model: DemoUNet) -> None:
    recorded = demo_metadata()
    assert recorded["training_slices"] == [[part.start, part.stop] for part in TRAINING_SLICES]
    assert recorded["held_out_slices"] == [HELD_OUT_SLICES.start, HELD_OUT_SLICES.stop]
    assert recorded["statistics"] == {
        name: list(v) for name, v in DEMO_STATISTICS._asdict().items()
    }
    assert recorded["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert isinstance(recorded["seed"], int)
