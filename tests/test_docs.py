"""The pages' examples run as they stand."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from tests.networks import UNet, seeded
from unetcam import UNetCAM, targets

PAGE = (Path(__file__).parents[1] / "docs" / "targets.md").read_text(encoding="utf-8")


def test_the_examples_on_targets_run() -> None:
    generator = torch.Generator().manual_seed(0)
    model = seeded(UNet(1, 3))
    found = {
        "model": model,
        "cam": UNetCAM(model),
        "images": torch.rand(2, 1, 16, 16, generator=generator),
        "truth": torch.randint(-1, 3, (2, 16, 16), generator=generator),
    }
    blocks = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    assert len(blocks) > 4
    for block in blocks:
        exec(compile(block, "docs/targets.md", "exec"), found)


def test_the_page_names_every_target() -> None:
    named = set(re.findall(r"`(\w+)\(", PAGE))
    kinds = {
        name
        for name in targets.__all__
        if isinstance(kind := getattr(targets, name), type)
        and issubclass(kind, targets.Target)
        and kind not in (targets.Target, targets.RegionScore)
    }
    assert kinds <= named, "docs/targets.md has one row for each target"
