"""One model in several threads: explanations wait for each other, and forwards see no hook."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.engine.test_state import assert_same, state_of
from tests.networks import UNet, seeded
from unetcam import UNetCAM, find_layers

IMAGES = torch.rand(2, 1, 16, 16, generator=torch.manual_seed(4))
OTHERS = torch.rand(1, 1, 16, 32, generator=torch.manual_seed(5))


class Slow(UNet):
    """Another thread has its turn between encoder and decoder."""

    def __init__(self) -> None:
        super().__init__(1, 3)
        self.down4.register_forward_hook(lambda module, args, output: time.sleep(0.01))

    def forward(self, x: Tensor, prior: Tensor | None = None) -> Tensor:
        return super().forward(x if prior is None else x + prior)


def together(*works: Callable[[], Any]) -> list[Any]:
    with ThreadPoolExecutor(len(works)) as pool:
        return [future.result() for future in [pool.submit(work) for work in works]]


METHODS = ("gradcam", "layercam", "ablationcam", "eigencam")


@pytest.mark.parametrize("method", METHODS)
def test_two_threads_explain_one_model(method: str) -> None:
    model = seeded(Slow()).train()
    alone = [UNetCAM(copy.deepcopy(model), ["up2"], method)(x)["up2"] for x in (IMAGES, OTHERS)]
    before = state_of(model)

    def work(images: Tensor, expected: Tensor) -> Callable[[], None]:
        def explain() -> None:
            for _ in range(4):
                ours = UNetCAM(model, ["up2"], method)(images)["up2"]
                torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-8)

        return explain

    together(*(work(x, maps) for x, maps in zip((IMAGES, OTHERS), alone, strict=True)))
    assert_same(before, state_of(model))


def test_several_inputs_a_part_of_a_model_and_its_layers_wait_for_each_other_too() -> None:
    model = seeded(Slow()).train()
    whole = nn.Sequential(model, nn.Conv2d(3, 2, 1))
    pair = (IMAGES, IMAGES.flip(0))
    calls: list[Callable[[Any], Any]] = [
        lambda one: UNetCAM(one[0], ["up2"])(pair)["up2"],
        lambda one: UNetCAM(one[0], ["up2"])(IMAGES)["up2"],
        lambda one: UNetCAM(one, ["0.up3"])(OTHERS)["0.up3"],
        lambda one: [row.name for row in find_layers(one[0], IMAGES)],
    ]
    expected = [call(copy.deepcopy(whole)) for call in calls]
    before = state_of(whole)
    for _ in range(3):
        ours = together(*(lambda call=call: call(whole) for call in calls))
        for one, other in zip(ours, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-8) if isinstance(
                one, Tensor
            ) else None
        assert ours[3] == expected[3]
    assert_same(before, state_of(whole))


@pytest.mark.parametrize("method", METHODS)
def test_a_forward_in_another_thread_is_its_own(method: str) -> None:
    model = seeded(Slow())
    expected, done = model(IMAGES).detach(), []

    def explain() -> None:
        try:
            for _ in range(3):
                UNetCAM(model, None, method)(OTHERS)
        finally:
            done.append(True)

    def run() -> int:
        count = 0
        while not done:
            torch.testing.assert_close(model(IMAGES).detach(), expected, rtol=1e-5, atol=1e-6)
            count += 1
        return count

    _, forwards = together(explain, run)
    assert forwards > 3


def test_threads_that_overlap_leave_the_compiler_as_it_was() -> None:
    from torch._dynamo import eval_frame

    before = eval_frame._stance.stance
    models = [seeded(Slow()) for _ in range(3)]
    together(
        *(
            lambda one=one, n=n: [UNetCAM(one, ["up2"])(IMAGES) for _ in range(n)] and None
            for n, one in enumerate(models, start=1)
        )
    )
    assert eval_frame._stance.stance == before
