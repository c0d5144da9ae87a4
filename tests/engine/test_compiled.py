"""What torch.compile made is explained as it was written, and runs compiled again afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.networks import UNet, seeded
from unetcam import UNetCAM, find_layers

IMAGES = torch.rand(1, 1, 32, 32, generator=torch.manual_seed(1))


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


class Counting:
    """A backend that counts how often its code runs."""

    def __init__(self) -> None:
        self.runs = 0

    def __call__(self, graph: Any, example: Any) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            self.runs += 1
            return graph.forward(*args)

        return run


def forward_of_the_instance(backend: Any) -> nn.Module:
    model: Any = seeded(UNet(1, 3))
    model.forward = torch.compile(model.forward, backend=backend)
    return model


def decorated_forward(backend: Any) -> nn.Module:
    class Decorated(UNet):
        @torch.compile(backend=backend)
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x)

    return seeded(Decorated(1, 3))


def a_stage(backend: Any) -> nn.Module:
    model: Any = seeded(UNet(1, 3))
    model.up3 = torch.compile(model.up3, backend=backend)
    return model


def a_module_in_place(backend: Any) -> nn.Module:
    model: Any = seeded(UNet(1, 3))
    model.up3.compile(backend=backend)
    model.compile(backend=backend)
    return model


def a_function(backend: Any) -> nn.Module:
    class Calling(UNet):
        def forward(self, x: Tensor) -> Tensor:
            return doubled(super().forward(x)) / 2

    doubled = torch.compile(lambda x: x * 2, backend=backend)
    return seeded(Calling(1, 3))


@pytest.mark.parametrize("method", ["gradcam", "ablationcam"])
@pytest.mark.parametrize(
    "make", [forward_of_the_instance, decorated_forward, a_stage, a_module_in_place, a_function]
)
def test_compiled_code_is_explained_as_it_was_written(
    make: Callable[[Any], nn.Module], method: str
) -> None:
    backend = Counting()
    model, plain = make(backend), seeded(UNet(1, 3))
    expected = model(IMAGES).detach()
    assert backend.runs > 0
    before = backend.runs
    ours = UNetCAM(model, ["up2", "up4"], method)(IMAGES)
    right = UNetCAM(plain, ["up2", "up4"], method)(IMAGES)
    assert backend.runs == before
    for layer in right.layers:
        torch.testing.assert_close(ours[layer], right[layer], rtol=1e-5, atol=1e-8)
    assert [row.name.replace("._orig_mod", "") for row in find_layers(model, IMAGES)] == [
        row.name for row in find_layers(plain, IMAGES)
    ]
    torch.testing.assert_close(model(IMAGES).detach(), expected)
    assert backend.runs > before
