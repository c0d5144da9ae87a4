from __future__ import annotations

import pytest
import torch

from unetcam.demo import CLASSES, DemoUNet


@pytest.mark.parametrize(("height", "width"), [(192, 160), (32, 48), (37, 51)])
def test_gives_a_logit_per_class_and_pixel(height: int, width: int) -> None:
    logits = DemoUNet().eval()(torch.zeros(2, 1, height, width))
    assert logits.shape == (2, len(CLASSES), height, width)


def test_has_about_half_a_million_weights() -> None:
    count = sum(parameter.numel() for parameter in DemoUNet().parameters())
    assert 0.4e6 < count < 0.6e6


def test_modules_carry_the_names_most_unets_have() -> None:
    names = [name for name, _ in DemoUNet().named_children()]
    downs, ups = [f"down{i}" for i in range(1, 5)], [f"up{i}" for i in range(1, 5)]
    assert names == ["inc", *downs, *ups, "outc"]


def test_stages_halve_and_double_the_resolution() -> None:
    model = DemoUNet().eval()
    sizes = {}
    for name, module in model.named_children():
        module.register_forward_hook(
            lambda _module, _inputs, output, name=name: sizes.update({name: output.shape[-1]})
        )
    model(torch.zeros(1, 1, 64, 64))
    assert [sizes[f"down{i}"] for i in range(1, 5)] == [32, 16, 8, 4]
    assert [sizes[f"up{i}"] for i in range(1, 5)] == [8, 16, 32, 64]


def test_every_weight_has_a_part_in_the_logits() -> None:
    model = DemoUNet()
    model(
        torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    ).square().sum().backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []
