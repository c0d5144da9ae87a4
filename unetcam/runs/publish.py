"""Putting a report into a finished run, whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from unetcam.errors import RunError
from unetcam.runs.files import FolderLock, remove_tree, write_json
from unetcam.runs.store import DRAFT, RUN_JSON, read_meta


@contextmanager
def publishing(folder: Path, *, in_place_of: Collection[str] = ()) -> Iterator[Path]:
    """Give an empty folder for a report; on leaving without an exception its files are published.

    The files are noted in run.json before they come to their places, so that they are known as
    the run's own even if the process is killed between them.

    Parameters
    ----------
    folder : Path
        A run's folder.
    in_place_of : collection of str
        Files of the run that are deleted once the new ones are in their places.

    Raises
    ------
    RunError
        If there is no run in it, or another process is writing it.
    """
    lock = FolderLock(folder)
    draft = folder / DRAFT
    try:
        meta = read_meta(folder)
        if meta is None:
            raise RunError(f"'{folder}' holds no run: name a folder that `unetcam report` wrote.")
        remove_tree(draft)
        draft.mkdir()
        yield draft
        names = [p.relative_to(draft).as_posix() for p in sorted(draft.rglob("*")) if p.is_file()]
        meta["files"] = sorted({*meta.get("files", []), *names})
        write_json(folder / RUN_JSON, meta)
        for name in names:
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(draft / name, target)
        if in_place_of:
            for name in in_place_of:
                (folder / name).unlink(missing_ok=True)
            meta["files"] = [name for name in meta["files"] if name not in in_place_of]
            write_json(folder / RUN_JSON, meta)
    finally:
        remove_tree(draft)
        lock.release()
