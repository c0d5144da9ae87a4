from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from unetcam.errors import RunError
from unetcam.runs.files import (
    FolderLock,
    remove_tree,
    replacing,
    write_json,
)
from unetcam.runs.publish import publishing


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("before")

    def fail_halfway() -> None:
        with replacing(target) as draft:
            draft.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_halfway()
    assert target.read_text() == "before"
    assert list(tmp_path.iterdir()) == [target]


def test_json_takes_names_that_are_no_text(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"name": "bild-\udcff.png", "ü": 1})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {
        "name": "bild-\udcff.png",
        "ü": 1,
    }


def test_a_second_process_is_told_that_the_folder_is_being_written(tmp_path: Path) -> None:
    code = (
        "import fcntl, sys\n"
        "handle = open(sys.argv[1], 'ab')\n"
        "fcntl.flock(handle, fcntl.LOCK_EX)\n"
        "print('locked', flush=True)\n"
        "sys.stdin.read()"
    )
    command = [sys.executable, "-S", "-c", code, str(tmp_path / FolderLock.NAME)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(RunError, match="Another process is writing"):
            FolderLock(tmp_path)
        other.kill()  # a lock ends with its process, however that ends
    FolderLock(tmp_path).release()
    assert list(tmp_path.iterdir()) == []


def test_a_lock_of_this_process_excludes_as_well(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path)
    with pytest.raises(RunError, match="Another process"):
        FolderLock(tmp_path)
    lock.release()


def test_a_lock_is_let_go_in_any_thread_and_only_once(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path)
    thread = threading.Thread(target=lock.release)
    thread.start()
    thread.join()
    after = FolderLock(tmp_path)
    lock.release()  # again: the folder is another's now
    with pytest.raises(RunError, match="Another process"):
        FolderLock(tmp_path)
    after.release()
    assert list(tmp_path.iterdir()) == []


def test_a_lock_is_let_go_when_an_exception_flies(tmp_path: Path) -> None:
    write_json(tmp_path / "run.json", {"no": "run"})
    with pytest.raises(RunError, match="holds no run"), publishing(tmp_path):
        raise AssertionError("nothing may be published here")
    FolderLock(tmp_path).release()


def test_what_a_killed_process_left_behind_locks_nothing(tmp_path: Path) -> None:
    (tmp_path / FolderLock.NAME).write_text("4711")
    FolderLock(tmp_path).release()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="its locks fail otherwise")
@pytest.mark.parametrize("why", ["ENOSYS", "ENOLCK", "EOPNOTSUPP"])
def test_a_drive_without_locks_is_refused(
    why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(getattr(errno, why), "no locks here")

    monkeypatch.setattr("fcntl.flock", flock)
    with pytest.raises(
        RunError, match=r"can't be locked \(no locks here\).*on another drive"
    ) as one:
        FolderLock(tmp_path)
    assert isinstance(one.value.__cause__, OSError)
    monkeypatch.undo()
    FolderLock(tmp_path).release()


def test_a_folder_that_can_not_be_written_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RunError, match="There is no folder"), publishing(tmp_path / "missing"):
        raise AssertionError("nothing may be published here")
    assert list(tmp_path.iterdir()) == []

    def refuse(*args: object, **kwargs: object) -> int:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(RunError, match=r"can't be written \(Read-only file system\): choose"):
        FolderLock(tmp_path)


def test_removing_a_tree_leaves_what_links_point_to(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "a").write_text("a")
    tree = tmp_path / "tree"
    (tree / "deep").mkdir(parents=True)
    (tree / "deep" / "link").symlink_to(kept)
    remove_tree(tree)
    assert not tree.exists()
    assert (kept / "a").exists()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="only where processes fork")
def test_a_child_that_outlives_its_parent_does_not_keep_the_folder(tmp_path: Path) -> None:
    code = (
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from unetcam.runs.files import FolderLock\n"
        "lock = FolderLock(Path(sys.argv[1]))\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    time.sleep(60)\n"
        "print(child, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.wait()
    try:
        os.kill(child, 0)  # it is still there
        FolderLock(tmp_path).release()
    finally:
        os.kill(child, signal.SIGKILL)
