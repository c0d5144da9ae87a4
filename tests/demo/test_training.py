"""The script that trains the demo's network, on few slices and for one epoch."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

SCRIPT = Path(__file__).parents[2] / "scripts" / "train_demo.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("train_demo", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def draws(script: ModuleType, seed: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    rows = np.linspace(40, 220, 64, dtype=np.uint8)
    image = np.broadcast_to(rows, (64, 64)).copy()
    mask = (image > 128).astype(np.uint8)
    dataset = script.AugmentedSlices(np.stack([image] * 6), np.stack([mask] * 6), seed)
    return [dataset[index] for index in range(6)]


def test_augmentation_moves_image_and_mask_together(script: ModuleType) -> None:
    for image, mask in draws(script, seed=0):
        dark, bright = image[0][mask == 0], image[0][mask == 1]
        if len(dark) and len(bright):  # the ramp's bright side, wherever it was moved to
            assert bright.quantile(0.05) > dark.quantile(0.95)


def test_augmentation_draws_anew_and_repeats_with_the_seed(script: ModuleType) -> None:
    first, again, other = draws(script, 0), draws(script, 0), draws(script, 1)
    assert all(torch.equal(a[0], b[0]) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a[0], b[0]) for a, b in zip(first, other, strict=True))
    assert not all(torch.equal(first[0][0], image) for image, _ in first)


def test_writes_weights_and_their_record(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    threads = torch.get_num_threads()
    monkeypatch.setattr(script, "TRAINING_SLICES", (range(60, 64),))
    with torch.random.fork_rng():
        script.main(tmp_path, epochs=1, batch_size=2, rate=1e-3, seed=3, threads=threads)
    weights = load_file(tmp_path / "weights.safetensors")
    record = json.loads((tmp_path / "weights.json").read_text(encoding="utf-8"))
    assert weights["outc.weight"].shape == (4, 12, 1, 1)
    assert (record["seed"], record["epochs"]) == (3, 1)
    assert record["training_slices"] == [[60, 64]]
    assert all(0 <= value <= 1 for value in record["held_out_iou"].values())
