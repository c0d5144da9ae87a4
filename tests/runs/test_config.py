from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
import torch
from torch import nn

from unetcam.errors import RunError
from unetcam.runs.spec import RunConfig, check_options, data_digest, model_digest

BASE: dict[str, Any] = {
    "model": "net.py:build",
    "model_args": {"classes": 3},
    "model_digest": "aa",
    "data_digest": "bb",
    "samples": 4,
    "classes": {"names": ("a", "b"), "values": (0, 1), "colours": ((1, 2, 3), (4, 5, 6))},
    "preprocessing": "options: {stride: 8}\npipeline: {__version__: 1}\n",
    "layers": ("up1", "up2"),
    "strides": (4, 2),
}


@pytest.mark.parametrize(
    "change",
    [
        {"model": "other"},
        {"model_args": {"classes": 4}},
        {"model_digest": "ab"},
        {"data_digest": "ab"},
        {"samples": 5},
        {"classes": {"names": ("a", "c")}},
        {"preprocessing": "options: {stride: 16}\n"},
        {"layers": ("up2", "up1")},
        {"strides": (4, 1)},
        {"method": "layercam"},
        {"target": "truth"},
        {"band": 3.0},
        {"threshold": 0.4},
        {"tolerance": 1.0},
        {"seed": 1},
        {"batch_size": 2},
        {"amp": True},
        {"device": "cuda"},
        {"orientation": "RAS"},
        {"tile": (96, 96, 96)},
        {"overlap": 16},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_setting_is_in_the_fingerprint_and_named_as_a_difference(
    change: dict[str, Any],
) -> None:
    config, other = RunConfig(**BASE), RunConfig(**{**BASE, **change})
    assert config.fingerprint() != other.fingerprint()
    assert len(config.differences(other.to_dict())) == 1


def test_every_field_is_covered_by_the_test_above() -> None:
    marks = test_every_setting_is_in_the_fingerprint_and_named_as_a_difference.pytestmark
    changed = {name for change in marks[0].args[1] for name in change}
    assert changed == {field.name for field in dataclasses.fields(RunConfig)}


def test_runs_of_images_have_the_fingerprint_that_they_had_before_there_were_volumes() -> None:
    before = "c17697dec1e315f01fa094d5cb95d6258ba471450837dfc3c68ec2c7bd637b40"
    assert RunConfig(**BASE).fingerprint() == before


@pytest.mark.parametrize("more", [{}, {"orientation": "RAS", "tile": (96, 96, 64), "overlap": 16}])
def test_json_and_back_is_the_same_run(more: dict[str, Any]) -> None:
    config = RunConfig(**BASE, **more)
    again = RunConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again.fingerprint() == config.fingerprint()
    assert config.differences(again.to_dict()) == []


def test_a_library_version_in_the_preprocessing_is_no_other_run() -> None:
    newer = {**BASE, "preprocessing": "options: {stride: 8}\npipeline: {__version__: 2}\n"}
    config = RunConfig(**newer)
    assert config.fingerprint() == RunConfig(**BASE).fingerprint()
    assert config.differences(RunConfig(**BASE).to_dict()) == []


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("target", "everything"),
        ("band", 0.5),
        ("band", float("nan")),
        ("threshold", 0.0),
        ("threshold", 1.1),
        ("tolerance", -1.0),
        ("seed", -1),
        ("seed", 2**32),
        ("batch_size", 0),
        ("workers", -1),
        ("limit", 0),
    ],
)
def test_an_option_out_of_range_is_one_sentence(option: str, value: Any) -> None:
    with pytest.raises(RunError) as caught:
        check_options(**{option: value})
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)


def test_layers_need_their_strides() -> None:
    with pytest.raises(RunError, match="one stride for each layer"):
        RunConfig(**{**BASE, "strides": (1,)})


def test_a_network_is_known_by_weights_buffers_and_structure() -> None:
    def net(slope: float = 0.1) -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.LeakyReLU(slope))

    digest = model_digest(net())
    assert model_digest(net()) == digest
    assert model_digest(net(0.2)) != digest
    changed = net()
    with torch.no_grad():
        changed[0].weight[0, 0, 0, 0] += 1e-6
    assert model_digest(changed) != digest
    buffered = net()
    buffered[1].num_batches_tracked += 1
    assert model_digest(buffered) != digest


def test_a_network_with_bfloat16_weights_has_a_digest() -> None:
    assert len(model_digest(nn.Conv2d(1, 1, 1).to(torch.bfloat16))) == 64


def test_data_is_known_by_names_and_contents() -> None:
    digest = data_digest([("a", ["1", "2"]), ("b", ["3"])])
    assert digest != data_digest([("a", ["1"]), ("b", ["2", "3"])])
    assert digest != data_digest([("c", ["1", "2"]), ("b", ["3"])])
