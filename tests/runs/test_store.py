from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.runs.test_spec import BASE
from unetcam.data import Skipped
from unetcam.errors import RunError
from unetcam.runs.publish import publishing
from unetcam.runs.run import Run
from unetcam.runs.spec import Spec
from unetcam.runs.store import RunStore

LOST = Skipped("b", "b.png", "'b.png' is empty.")


def spec(**change: Any) -> Spec:
    return Spec(**{**BASE, **change})


def rows(*images: str) -> pd.DataFrame:
    count = len(images)
    return pd.DataFrame(
        {
            "image": list(images),
            "layer": "up1",
            "stage_stride": 4,
            "class_index": 0,
            "class_name": "a",
            "target": "class",
            "method": "gradcam",
            "empty": [False] * count,
            "gini": [0.5] * count,
        }
    )


def finished(folder: Path, **change: Any) -> RunStore:
    with RunStore(folder, spec(**change)) as store:
        store.append(0, rows("a"), [LOST])
        store.append(1, rows("c", "d"), [])
        store.finish([Skipped("z", "z.png", "No mask.")], {"images": 5})
        store.write_summary(Run.load(folder).summary)
    return store


def tree(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_finished_run_can_be_read_back(tmp_path: Path) -> None:
    finished(tmp_path / "run")
    run = Run.load(tmp_path / "run")
    assert list(run.rows["image"]) == ["a", "c", "d"]
    assert list(pd.read_csv(tmp_path / "run" / "rows.csv")["image"]) == ["a", "c", "d"]
    assert [one.id for one in run.skipped] == ["z", "b"]
    assert list(pd.read_csv(tmp_path / "run" / "skipped.csv")["id"]) == ["z", "b"]
    assert run.layers == ["up1", "up2"]
    assert run.classes.names == ("a", "b")
    assert run.meta["counts"] == {"images": 5, "explained": 3, "rows": 3, "skipped": 2}
    assert {"torch", "numpy", "python", "unetcam"} <= set(run.meta["versions"])
    assert not (tmp_path / "run" / "parts").exists()


def test_a_run_goes_on_with_the_parts_that_are_there(tmp_path: Path) -> None:
    with RunStore(tmp_path, spec()) as store:
        assert store.state == "new"
        store.append(0, rows("a"), [LOST])
    with RunStore(tmp_path, spec()) as store:
        assert store.state == "resumed"
        assert store.done() == {0}
        store.append(1, rows("c", "d"), [])
        store.finish([], {"images": 4})
    assert Run.load(tmp_path).meta["resumed"] == 1
    finished(tmp_path / "straight")
    resumed, straight = (f / "rows.parquet" for f in (tmp_path, tmp_path / "straight"))
    assert resumed.read_bytes() == straight.read_bytes()


def test_a_run_killed_while_it_was_joined_is_joined_again(tmp_path: Path) -> None:
    with RunStore(tmp_path, spec()) as store:
        store.append(0, rows("a"), [])
        (tmp_path / ".rows.parquet.tmp-unetcam").write_bytes(b"half")
        (tmp_path / "parts" / ".000001-0.parquet.tmp-unetcam").write_bytes(b"half")
    with RunStore(tmp_path, spec()) as store:
        assert store.done() == {0}
        store.finish([], {"images": 1})
    assert not [name for name in tree(tmp_path) if "tmp" in name]


def test_an_unfinished_run_is_no_result(tmp_path: Path) -> None:
    with RunStore(tmp_path, spec()) as store:
        store.append(0, rows("a"), [])
    with pytest.raises(RunError, match="not finished"):
        Run.load(tmp_path)


def test_a_finished_run_is_not_run_again(tmp_path: Path) -> None:
    finished(tmp_path)
    before = tree(tmp_path)
    with RunStore(tmp_path, spec()) as store:
        assert store.state == "finished"
    assert tree(tmp_path) == before


def test_another_run_is_not_overwritten_and_the_message_says_what_differs(tmp_path: Path) -> None:
    finished(tmp_path)
    before = tree(tmp_path)
    with pytest.raises(RunError, match=r"method \(gradcam there, layercam here\).*force=True"):
        RunStore(tmp_path, spec(method="layercam"))
    assert tree(tmp_path) == before


def test_foreign_files_are_not_written_beside_without_force(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(RunError, match=r"thesis\.tex"):
        RunStore(tmp_path, spec())
    assert list(tree(tmp_path)) == ["thesis.tex"]
    with RunStore(tmp_path, spec(), force=True) as store:
        assert store.state == "new"
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_files_that_may_stand_beside_a_run_are_no_hindrance(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / ".gitkeep").touch()
    RunStore(tmp_path, spec(), beside={"data"}).__exit__(None, None, None)


def test_force_deletes_only_what_a_run_wrote(tmp_path: Path) -> None:
    run = tmp_path / "run"
    finished(run)
    with publishing(run) as draft:
        (draft / "figures").mkdir()
        (draft / "figures" / "one.svg").write_text("ours")
        (draft / "report.html").write_text("ours")
    for name in ("notes.txt", "figures/mine.svg", "parts/000007.parquet", "rows.parquet.bak"):
        (run / name).parent.mkdir(exist_ok=True)
        (run / name).write_text("mine")
    with RunStore(run, spec(method="layercam"), force=True) as store:
        assert store.done() == set()
    left = tree(run)
    assert {name for name, content in left.items() if content == b"mine"} == {
        "notes.txt",
        "figures/mine.svg",
        "parts/000007.parquet",
        "rows.parquet.bak",
    }
    assert set(left) - {name for name, content in left.items() if content == b"mine"} == {
        "run.json",
        "preprocessing.yaml",
    }


def test_force_never_reaches_outside_the_folder(tmp_path: Path) -> None:
    run, outside = tmp_path / "run", tmp_path / "outside.txt"
    finished(run)
    outside.write_text("mine")
    meta = json.loads((run / "run.json").read_text())
    meta["files"] += ["../outside.txt", str(outside)]
    (run / "run.json").write_text(json.dumps(meta))
    RunStore(run, spec(seed=1), force=True).__exit__(None, None, None)
    assert outside.read_text() == "mine"


def test_force_repeats_the_same_run_from_the_start(tmp_path: Path) -> None:
    with RunStore(tmp_path, spec()) as store:
        store.append(0, rows("a"), [])
    with RunStore(tmp_path, spec(), force=True) as store:
        assert store.state == "new"
        assert store.done() == set()


def test_nothing_left_fails_with_the_first_reason_and_can_be_tried_again(tmp_path: Path) -> None:
    with RunStore(tmp_path, spec()) as store:
        store.append(0, pd.DataFrame(), [LOST])
        with pytest.raises(RunError, match=r"all 1 were skipped.*'b.png' is empty"):
            store.finish([], {"images": 1})
    with pytest.raises(RunError):
        Run.load(tmp_path)
    with RunStore(tmp_path, spec(data_digest="mended")) as store:
        assert store.state == "new"


def test_a_part_without_rows_among_others_does_no_harm(tmp_path: Path) -> None:
    with RunStore(tmp_path, spec()) as store:
        store.append(0, pd.DataFrame(), [LOST])
        store.append(1, rows("c"), [])
        store.finish([], {"images": 2})
    assert list(Run.load(tmp_path).rows["image"]) == ["c"]


def test_two_writers_of_one_run_do_not_meet(tmp_path: Path) -> None:
    with RunStore(tmp_path, spec()), pytest.raises(RunError, match="Another process"):
        RunStore(tmp_path, spec())


def test_a_report_that_fails_leaves_the_one_before(tmp_path: Path) -> None:
    finished(tmp_path)
    with publishing(tmp_path) as draft:
        (draft / "report.html").write_text("first")
    before = tree(tmp_path)

    def fail_halfway() -> None:
        with publishing(tmp_path) as draft:
            (draft / "report.html").write_text("second")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_halfway()
    assert tree(tmp_path) == before


def test_a_file_in_the_place_of_the_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(RunError, match="is a file"):
        RunStore(tmp_path / "run", spec())


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "holds no run"),
        ("{}", "holds no run"),
        ("no json", "holds no run"),
        ('{"schema_version": 99, "fingerprint": "", "status": "finished"}', "schema version 99"),
    ],
)
def test_what_is_no_run_is_told_so(tmp_path: Path, content: str | None, words: str) -> None:
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    with pytest.raises(RunError, match=words):
        Run.load(tmp_path)


def test_lost_rows_are_told_so(tmp_path: Path) -> None:
    finished(tmp_path)
    (tmp_path / "rows.parquet").unlink()
    with pytest.raises(RunError, match=r"rows.parquet.*written anew"):
        Run.load(tmp_path)


def test_a_missing_folder_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no folder"):
        Run.load(tmp_path / "none")
