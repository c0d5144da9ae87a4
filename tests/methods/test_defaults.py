"""Maps do not depend on torch's default type and device, whatever a method draws."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import nn

from tests.methods.harness import network, quick
from tests.networks import UNet, seeded
from unetcam import UNetCAM, methods
from unetcam.targets import ClassScore, Pixel, PredictedRegion

IMAGES = torch.rand(1, 1, 16, 16, generator=torch.manual_seed(3))
WIDE = torch.rand(1, 1, 32, 64, generator=torch.manual_seed(3))


@contextmanager
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def on_meta() -> Iterator[None]:
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)


@pytest.mark.parametrize("default", [double, on_meta])
@pytest.mark.parametrize("name", [*methods.names(), "smooth-gradcam"])
def test_a_method_gives_the_same_maps_under_any_default(
    name: str, default: Callable[[], Any]
) -> None:
    model, layers = network(name)
    method = quick(name)
    images = torch.rand(1, 1, 32, 32, generator=torch.manual_seed(3), device="cpu")
    expected = UNetCAM(model, layers, method)(images)
    with default():
        ours = UNetCAM(model, layers, method)(images)
    for layer in expected.layers:
        assert ours[layer].dtype == expected[layer].dtype
        torch.testing.assert_close(
            ours[layer], expected[layer], rtol=1e-5, atol=1e-7, equal_nan=True
        )


CALLS: dict[str, Callable[[nn.Module], Any]] = {
    "tiled": lambda model: UNetCAM(model).tiled(WIDE, 32, 16)["up3"],
    "tiled layercam": lambda model: UNetCAM(model, None, "layercam").tiled(WIDE, 32, 16)["up3"],
    "field": lambda model: UNetCAM(model).field(IMAGES).derivative,
    "targets": lambda model: UNetCAM(model)(
        IMAGES, [Pixel(1, y=3, x=2), PredictedRegion(0), ClassScore(2, on="probability")]
    )["up3"],
    "errors": lambda model: (
        UNetCAM(model)
        .explain_errors(IMAGES, torch.zeros(16, 16, dtype=torch.long, device="cpu"))
        .made_up["up3"]
    ),
    "create_graph": lambda model: UNetCAM(model)(IMAGES, create_graph=True)["up3"].detach(),
}


@pytest.mark.parametrize("default", [double, on_meta])
@pytest.mark.parametrize("call", CALLS.values(), ids=list(CALLS))
def test_a_call_gives_the_same_under_any_default(
    call: Callable[[nn.Module], Any], default: Callable[[], Any]
) -> None:
    model = seeded(UNet(1, 3))
    expected = call(model)
    with default():
        ours = call(model)
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-7, equal_nan=True)
