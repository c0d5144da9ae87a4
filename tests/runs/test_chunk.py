from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.runs.factory import plan
from unetcam.runs import chunk, execute
from unetcam.runs.explain import Explained, Explainer
from unetcam.runs.spec import Spec


def test_a_batch_is_measured_while_the_next_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = threading.Event()
    explained, measured, met = Explainer.explain, chunk.rows_of, []

    def explain(self: Explainer, items: Any) -> Explained:
        if met:
            second.set()
        met.append(threading.current_thread())
        return explained(self, items)

    def rows_of(batch: Explained, spec: Spec) -> pd.DataFrame:
        assert threading.current_thread() is not met[0]
        assert second.wait(60)  # the first batch's rows come only once the second is begun
        return measured(batch, spec)

    monkeypatch.setattr(Explainer, "explain", explain)
    monkeypatch.setattr(chunk, "rows_of", rows_of)
    run = execute(plan(tmp_path, 6, batch_size=2), tmp_path / "run")
    assert list(dict.fromkeys(run.rows["image"])) == [f"im{k:02d}" for k in range(6)]
    assert len(met) == 3


def test_no_more_than_two_batches_are_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held, most = [], []
    explained, measured = Explainer.explain, chunk.rows_of

    def explain(self: Explainer, items: Any) -> Explained:
        held.append(len(items))
        most.append(len(held))
        return explained(self, items)

    def rows_of(batch: Explained, spec: Spec) -> pd.DataFrame:
        table = measured(batch, spec)
        held.pop()
        return table

    monkeypatch.setattr(Explainer, "explain", explain)
    monkeypatch.setattr(chunk, "rows_of", rows_of)
    execute(plan(tmp_path, 8, batch_size=1), tmp_path / "run")
    assert max(most) <= 2


@pytest.mark.parametrize("where", ["explaining", "measuring"])
def test_what_fails_beside_another_batch_is_tried_alone_before_it_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Two batches may not fit where one does."""
    explained, measured, busy = Explainer.explain, chunk.rows_of, threading.Event()

    def explain(self: Explainer, items: Any) -> Explained:
        if where == "explaining" and busy.is_set():
            raise MemoryError
        if where == "explaining":
            busy.set()
        return explained(self, items)

    def rows_of(batch: Explained, spec: Spec) -> pd.DataFrame:
        if where == "measuring" and len(batch.batches[0].items) > 1:
            raise MemoryError
        return measured(batch, spec)

    finish = chunk.Chunk._finish

    def finished(self: chunk.Chunk) -> None:
        finish(self)
        busy.clear()

    monkeypatch.setattr(Explainer, "explain", explain)
    monkeypatch.setattr(chunk, "rows_of", rows_of)
    monkeypatch.setattr(chunk.Chunk, "_finish", finished)
    run = execute(plan(tmp_path, 4, batch_size=2), tmp_path / "run")
    assert run.rows["image"].nunique() == 4
    assert not run.skipped


def test_a_bug_in_the_measures_is_not_called_a_damaged_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rows_of(batch: Explained, spec: Spec) -> pd.DataFrame:
        raise KeyError("a bug")

    monkeypatch.setattr(chunk, "rows_of", rows_of)
    with pytest.raises(KeyError, match="a bug"):
        execute(plan(tmp_path, 2), tmp_path / "run")
