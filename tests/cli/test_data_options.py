"""What a person says of files on the command line reaches the reading of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.runs.factory import CLASSES, write_data, write_network
from unetcam.cli import main

pytestmark = pytest.mark.usefixtures("plain_page")


def report(work: Path, *more: str, out: str = "run") -> int:
    return main(
        ["report", f"{work / 'net.py'}:build", "--images", str(work / "images"), "--masks",
         str(work / "masks"), "--classes", CLASSES, "--out", str(work / out), "--device", "cpu",
         "--workers", "0", "--quiet", *more]
    )  # fmt: skip


@pytest.fixture
def work(tmp_path: Path) -> Path:
    write_data(tmp_path, 3)
    write_network(tmp_path)
    return tmp_path


def test_masks_are_found_by_a_suffix_or_a_pattern(work: Path) -> None:
    assert report(work, out="plain") == 0
    for path in (work / "masks").iterdir():
        path.rename(path.with_name(f"{path.stem}_gt_v2.png"))
    assert report(work, "--mask-suffix", "_gt_v2", out="suffix") == 0
    assert report(work, "--pair", "{stem}_gt_v2", out="pair") == 0
    rows = [(work / name / "rows.csv").read_bytes() for name in ("plain", "suffix", "pair")]
    assert rows[0] == rows[1] == rows[2]


def test_values_are_normalised_by_name(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report(work, out="plain") == 0
    assert report(work, "--normalise", "zscore", out="zscore") == 0
    assert report(work, "--normalise", "imagenet", out="imagenet") == 0
    mean, std = "0.485,0.456,0.406", "0.229,0.224,0.225"
    assert report(work, "--mean", mean, "--std", std, out="given") == 0
    entropy = {
        name: pd.read_csv(work / name / "rows.csv")["entropy"].to_numpy()
        for name in ("plain", "zscore", "imagenet", "given")
    }
    np.testing.assert_array_equal(entropy["imagenet"], entropy["given"])
    assert not np.array_equal(entropy["plain"], entropy["zscore"])
    assert json.loads((work / "zscore" / "run.json").read_text())["spec"]["normalise"] == "zscore"
    capsys.readouterr()
    assert report(work, "--normalise", "zscore", "--max-value", "9", out="both") == 2
    assert "--normalise zscore" in capsys.readouterr().err


def test_the_largest_image_is_settable(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report(work, "--max-pixels", "100") == 2
    assert "--max-pixels" in capsys.readouterr().err


def test_masks_that_start_at_one_are_told_with_a_remedy_that_works(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report(work, out="plain") == 0
    for path in (work / "masks").iterdir():
        Image.fromarray(np.array(Image.open(path)) + np.uint8(1)).save(path)
    assert report(work, out="shifted") == 2
    told = capsys.readouterr().err
    remedy = told.rsplit("--classes ", 1)[1].strip().rstrip(".")
    assert report(work, "--classes", remedy, out="shifted") == 0
    plain, shifted = (pd.read_csv(work / name / "rows.csv") for name in ("plain", "shifted"))
    pd.testing.assert_series_equal(plain["class_iou"], shifted["class_iou"])
