from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Tiny tensors: threads would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def plain_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page without figures, for tests of what happens around it."""
    import unetcam.tasks.report

    def write(
        run: object, examples: object, diagnosis: object, out: Path, *, mistakes: object
    ) -> Path:
        page = out / "report.html"
        page.write_text("<!doctype html>")
        return page

    monkeypatch.setattr(unetcam.tasks.report, "write_report", write)
