from __future__ import annotations

from pathlib import Path

import pytest

from tests.page.synthetic import Run, Skipped, make_run
from unetcam.page import write_report
from unetcam.page.html import render

SCRIPT = "<script>window.hacked=1</script>.png"
NAMES = ("background", "sound", "elsewhere", "<b>hollow</b>", "scattered")


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run whose classes each have a known character; nobody may change it."""
    return make_run(
        tmp_path_factory.mktemp("run"),
        names=NAMES,
        images=8,
        image_names={0: SCRIPT},
        skipped=(Skipped("x", "masks/a&b.png", "The mask holds 7 & 9, which no class has."),),
    )


@pytest.fixture(scope="session")
def wide_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Many classes, many layers and long names."""
    names = ("background", *(f"a class with a rather long name, number {n}" for n in range(1, 21)))
    layers = tuple(f"decoder.blocks.{n}.attention2.attention" for n in range(6))
    return make_run(
        tmp_path_factory.mktemp("wide"),
        names=names,
        characters=tuple(
            ("sound", "elsewhere", "hollow", "scattered", "silent")[n % 5] for n in range(21)
        ),
        strides=(32, 16, 8, 4, 2, 1),
        layer_names=layers,
        images=2,
        shape=(48, 64),
        image_names={0: "patient_with_a_very_long_identifier_that_has_no_place_to_break_0001"},
    )


@pytest.fixture(scope="session")
def page_file(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of ``run`` as it is written, its figures beside it."""
    folder = tmp_path_factory.mktemp("page")
    return write_report(run, run.examples(), run.diagnosis(), folder, mistakes=run.mistakes())


@pytest.fixture(scope="session")
def wide_page_file(wide_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of ``wide_run`` alone."""
    path = tmp_path_factory.mktemp("wide-page") / "report.html"
    text = render(wide_run, wide_run.examples(), wide_run.diagnosis(), mistakes=wide_run.mistakes())
    path.write_text(text, encoding="utf-8")
    return path
