"""What the pages on data say is so: every format, every option, every test that is named."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from unetcam.data.formats import FORMATS
from unetcam.data.normalisation import PRESETS, parse_normalisation
from unetcam.data.options import DataOptions

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
SECURITY = (ROOT / "SECURITY.md").read_text(encoding="utf-8")


def test_every_suffix_and_option_is_named() -> None:
    for one in FORMATS:
        for suffix in one.suffixes:
            assert suffix in PAGE, f"docs/data.md does not name {suffix} ({one.name})"
    for field in fields(DataOptions):
        assert field.name in PAGE or field.name == "tiled"


def test_every_normalisation_on_the_page_is_understood() -> None:
    table = PAGE.partition("## Normalising")[2].partition("## What is shown")[0]
    named = re.findall(r"`([a-z]+(?::[\w.:-]+)?(?:,[a-z:]+)?)`", table)
    assert len(named) >= 9
    for name in named:
        if name not in PRESETS and not name.endswith("="):
            assert parse_normalisation(name)


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(tests/[\w/.]+)`", SECURITY))))
def test_every_test_that_the_security_page_names_is_there(name: str) -> None:
    assert (ROOT / name).exists()
