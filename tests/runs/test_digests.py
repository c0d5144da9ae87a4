from __future__ import annotations

import torch
from torch import nn

from unetcam.runs.digests import data_digest, digest_of, model_digest


def test_a_digest_tells_values_apart_but_not_their_order() -> None:
    assert digest_of({"a": 1, "b": [1, 2]}) == digest_of({"b": [1, 2], "a": 1})
    assert digest_of({"a": [1, 2]}) != digest_of({"a": [2, 1]})


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
