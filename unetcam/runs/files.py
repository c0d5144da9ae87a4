"""Files that appear whole or not at all, and a lock on their folder."""

from __future__ import annotations

import json
import os
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

from unetcam.errors import RunError

TEMPORARY = ".tmp-unetcam"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; on leaving without an exception it takes its place.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with replacing(folder / "a.txt") as draft:
    ...     _ = draft.write_text("whole")
    >>> [p.name for p in folder.iterdir()]
    ['a.txt']
    """
    draft = path.with_name(f".{path.name}{TEMPORARY}")
    try:
        yield draft
        with draft.open("rb+") as handle:
            os.fsync(handle.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file at once, as UTF-8 with Unix line ends."""
    with (
        replacing(path) as draft,
        draft.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as handle,
    ):
        handle.write(text)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object at once."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def remove_tree(folder: Path) -> None:
    """Remove a folder of ours with all that is in it; a link is never followed."""
    if not folder.is_dir() or folder.is_symlink():
        return
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink(missing_ok=True)
    folder.rmdir()


class FolderLock:
    """A lock on a folder that ends with the process, however it ends.

    Two processes that write one run would delete each other's parts; the second is told so.
    Where the file system knows no locks (some network drives), there is none.
    """

    NAME = ".unetcam-lock"
    _held: ClassVar[weakref.WeakSet[FolderLock]] = weakref.WeakSet()

    def __init__(self, folder: Path) -> None:
        self._path = folder / self.NAME
        self._handle = self._path.open("a+b")
        try:
            _lock(self._handle.fileno())
        except BlockingIOError:
            self._handle.close()
            raise RunError(
                f"Another process is writing '{folder}' now: wait for it, or choose another folder."
            ) from None
        except OSError:
            pass
        self._held.add(self)

    @classmethod
    def let_go_in_child(cls) -> None:
        """A forked reader must not hold its parent's locks: it may outlive it."""
        for lock in cls._held:
            lock._handle.close()

    def release(self) -> None:
        """Give the folder free and remove the lock's file."""
        if not self._handle.closed:
            with suppress(OSError):
                self._path.unlink()
            self._handle.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=FolderLock.let_go_in_child)


def _lock(descriptor: int) -> None:
    try:
        import fcntl
    except ImportError:  # not a POSIX system
        return
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
