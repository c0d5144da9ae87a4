"""Files that appear whole or not at all, and a lock on their folder."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from unetcam.errors import RunError

TEMPORARY = ".tmp-unetcam"

#: What file systems say that know no locks, as some network drives.
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)


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

    Two processes that write one run would delete each other's parts; the second is told so at
    once. A forked child does not hold its parent's lock, and what a killed process left behind
    locks nothing.

    Parameters
    ----------
    folder : Path

    Raises
    ------
    RunError
        For a folder that another process is writing, that can't be written or locked, and for none.
    """

    NAME = ".unetcam-lock"

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():  # which would be made
            raise RunError(f"There is no folder '{folder}': name one that is there.")
        # Any thread may let go of it; a soft lock, which is a mere file, would outlive a kill.
        self._lock = FileLock(folder / self.NAME, thread_local=False, fallback_to_soft=False)
        try:
            self._lock.acquire(blocking=False)
        except Timeout:
            raise RunError(
                f"Another process is writing '{folder}' now: wait for it, or choose another folder."
            ) from None
        except OSError as error:
            why = error.strerror or error
            if error.errno in _NO_LOCKS:
                raise RunError(
                    f"'{folder}' lies on a drive whose files can't be locked ({why}): choose a "
                    "folder on another drive, and copy the run when it is finished."
                ) from error
            raise RunError(
                f"'{folder}' can't be written ({why}): choose a folder that can."
            ) from error

    def release(self) -> None:
        """Give the folder free and remove the lock's file."""
        if self._lock.is_locked:
            with suppress(OSError):  # Windows removes no open file
                Path(self._lock.lock_file).unlink()
            self._lock.release()
