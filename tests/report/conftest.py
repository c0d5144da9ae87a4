from __future__ import annotations

import pytest

from tests.report.synthetic import Run, Skipped, make_run

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
