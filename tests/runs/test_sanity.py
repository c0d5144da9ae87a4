"""A run's check in its folder."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from unetcam.measures.sanity import Similarity
from unetcam.runs.sanity import CHECK, Check, Checked, CheckRow, read_checked, write_checked

ROW = CheckRow(
    "gradcam",
    "class",
    "up1",
    ("copies the mask",),
    Similarity(0.5, 0.25, 60),
    (("all weights", Similarity(0.75, 0.5, 24)),),
    None,
    Similarity(math.nan, math.nan, 0),
    {"edges": Similarity(0.1, 0.2, 24)},
)
CHECKED = Checked(Check((ROW,), images=6, seed=3, seconds=1.5))


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    write_checked(tmp_path, "abc", CHECKED)
    found = read_checked(tmp_path, "abc")
    assert found is not None
    assert found.check is not None
    assert found.check.to_dict() == CHECKED.check.to_dict()
    assert math.isnan(found.check.rows[0].other_class.spearman)
    assert found.check.rows[0].reasons == ROW.reasons


def test_a_reason_for_none_is_kept(tmp_path: Path) -> None:
    write_checked(tmp_path, "abc", Checked(None, "No."))
    assert read_checked(tmp_path, "abc") == Checked(None, "No.")


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "[" * 100_000,
        lambda text: text.replace('"rows"', '"lines"'),
        lambda text: text.replace('"pairs": 60', '"pairs": "many"'),
        lambda text: "null",
    ],
)
def test_what_was_damaged_or_is_of_another_run_is_made_again(
    tmp_path: Path, damage: object
) -> None:
    write_checked(tmp_path, "abc", CHECKED)
    assert read_checked(tmp_path, "other") is None
    path = tmp_path / CHECK
    text = path.read_text(encoding="utf-8")
    assert json.loads(text)["fingerprint"] == "abc"
    path.write_text(damage(text), encoding="utf-8")
    assert read_checked(tmp_path, "abc") is None
