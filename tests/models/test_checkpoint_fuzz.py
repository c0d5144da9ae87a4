"""Thousands of damaged checkpoints: each is read, or told in a line, soon, in little memory."""

from __future__ import annotations

import io
import json
import os
import random
import resource
import traceback
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save
from torch import nn

from tests.data.fuzzing import LONGEST, LONGEST_MESSAGE, TooLongError, mutate, time_limit
from unetcam.errors import UnetcamError
from unetcam.models.checkpoints import load_checkpoint

COUNT = int(os.environ.get("UNETCAM_FUZZ", "100"))
"""Mutations of each kind of file; a thousand are a matter of some minutes."""

MOST_MEMORY = 2 * 2**20
"""KiB that the process may have grown to (Linux)."""

Mutate = Callable[[bytes, random.Random], bytes]


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))


def _saved(content: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def inside(content: bytes, draw: random.Random) -> bytes:
    """One file of an archive mutated, and the archive written anew: its checksums are right."""
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(target, "w") as new:
        names = old.namelist()
        pickled = [name for name in names if name.endswith("data.pkl")]
        chosen = draw.choice([*names, *pickled * len(names)])
        for name in names:
            data = old.read(name)
            new.writestr(name, mutate(data, draw) if name == chosen else data)
    return target.getvalue()


def whole_files() -> dict[str, tuple[str, bytes, Mutate]]:
    """Checkpoints of every kind: what they are called, their bytes, and how they are damaged."""
    weights = network().state_dict()
    training = {
        "epoch": 3,
        "state_dict": {f"model.{name}": tensor for name, tensor in weights.items()},
        "optimizer": torch.optim.Adam(network().parameters()).state_dict(),
        "best": np.float64(0.5),
        "names": ["a", "b"],
    }
    index = {"metadata": {}, "weight_map": dict.fromkeys(weights, "part.safetensors")}
    zipped = _saved(training)
    return {
        "zip": ("a.pt", zipped, mutate),
        "inside a zip": ("a.ckpt", zipped, inside),
        "old": ("a.pth", _saved(training, _use_new_zipfile_serialization=False), mutate),
        "safetensors": ("a.safetensors", save(weights), mutate),
        "index": ("a.index.json", json.dumps(index).encode(), mutate),
    }


def fault_of(path: Path, content: bytes, draw: random.Random) -> str | None:
    """What is wrong with how a damaged file is met; None where it is read or told in a line."""
    path.write_bytes(content)
    options: dict[str, Any] = {"partial": draw.random() < 0.3}
    if draw.random() < 0.2:
        options["key"] = draw.choice(["state_dict", "state_dict.model", "x"])
    try:
        with warnings.catch_warnings(), time_limit(LONGEST):
            warnings.simplefilter("ignore")
            load_checkpoint(network(), path, **options)
    except UnetcamError as error:
        text = str(error)
        if "\n" in text or len(text) > LONGEST_MESSAGE + len(str(path)):
            return f"a message of {len(text)} characters: {text[:300]!r}"
        return None if text.endswith((".", "?")) else f"no sentence: {text[-200:]!r}"
    except (Exception, TooLongError) as error:
        return "".join(traceback.format_exception(error))[-900:]
    return None


def check(folder: Path, count: int, seed: int) -> None:
    (folder / "part.safetensors").write_bytes(save(network().state_dict()))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for kind, (name, content, damage) in whole_files().items():
        path = folder / name
        path.write_bytes(content)
        load_checkpoint(network(), path)
        for number in range(count):
            case = f"{seed}/{kind}/{number}"
            draw = random.Random(case)
            fault = fault_of(path, damage(content, draw), draw)
            assert fault is None, f"{case}: {fault}"
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            assert grown < before + MOST_MEMORY, f"{case}: grew to {grown / 2**20:.1f} GiB"


def test_some_damaged_checkpoints_are_met_with_a_line(tmp_path: Path) -> None:
    check(tmp_path, 12, seed=1)


@pytest.mark.slow
def test_many_damaged_checkpoints_are_met_with_a_line(tmp_path: Path) -> None:
    check(tmp_path, COUNT, seed=int(os.environ.get("UNETCAM_FUZZ_SEED", "2")))
