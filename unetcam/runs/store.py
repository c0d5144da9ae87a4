"""The RUN folder: written part by part, continued after a kill, never taken from another run.

While a run goes, ``parts/`` holds one Parquet file for each chunk of images, with the images that
were skipped in its metadata; a part is there wholly or not at all. At the end the parts become
``rows.parquet`` and ``rows.csv``, and go.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import pandas as pd
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from unetcam.data import Skipped
from unetcam.errors import RunError
from unetcam.runs.digests import file_digest
from unetcam.runs.files import TEMPORARY, FolderLock, remove_tree, replacing, write_json, write_text
from unetcam.runs.parts import (
    PARTS,
    Part,
    read_parts,
    read_rows,
    remove_parts,
    skipped_of,
    write_part,
)
from unetcam.runs.spec import SCHEMA_VERSION, Spec
from unetcam.runs.versions import versions

RUN_JSON = "run.json"
ROWS = "rows.parquet"
ROWS_CSV = "rows.csv"
SUMMARY = "summary.csv"
SKIPPED = "skipped.csv"
PREPROCESSING = "preprocessing.yaml"
DRAFT = ".report-draft"

_TABLES = (ROWS, ROWS_CSV, SUMMARY, SKIPPED, PREPROCESSING)
_HARMLESS = {".DS_Store", ".gitignore", ".gitkeep", "Thumbs.db", "desktop.ini"}
State = Literal["new", "resumed", "finished"]


class RunStore:
    """A run's folder, opened for writing; use it as a context manager.

    Parameters
    ----------
    folder : Path
        RUN. It is made where it is missing.
    spec : Spec
        What is to be run.
    command : sequence of str
        The command line, for run.json.
    force : bool
        Replace another run, or write beside foreign files. Only files that a run wrote are ever
        deleted.
    beside : collection of str
        Names that may stand in the folder beside the run.

    Raises
    ------
    RunError
        For a folder that holds another run or foreign files (without `force`), that another
        process is writing, or that can't be written.
    """

    def __init__(
        self,
        folder: Path,
        spec: Spec,
        *,
        command: Sequence[str] = (),
        force: bool = False,
        beside: Collection[str] = (),
    ) -> None:
        self.folder = folder
        self.spec = spec
        self.fingerprint = spec.fingerprint()
        #: Whether something that was written before can't be read, and is written again.
        self.damaged = False
        if folder.exists() and not folder.is_dir():
            raise RunError(f"'{folder}' is a file: name a folder for the run.")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"'{folder}' can't be written: {error.strerror or error}.") from error
        self._lock = FolderLock(folder)
        try:
            self.state: State = self._claim(force, beside)
            self._start(command)
        except BaseException:
            self._lock.release()
            raise

    def __enter__(self) -> RunStore:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._lock.release()

    def _claim(self, force: bool, beside: Collection[str]) -> State:
        check_free(self.folder, force=force, beside=beside)
        meta = read_meta(self.folder)
        if meta is None:
            return "new"
        same = meta.get("fingerprint") == self.fingerprint
        if same and not force and meta.get("status") != "failed":
            if meta.get("status") == "finished" and _rows_are_whole(self.folder, meta):
                return "finished"
            return "resumed"
        if not force and meta.get("status") != "failed":
            differences = self.spec.differences(meta.get("spec", {}))
            raise RunError(
                f"'{self.folder}' holds another run (it differs in "
                f"{_listed(differences) if differences else 'its schema version'}): choose another "
                "folder, or add force=True to replace it.",
                option="force",
            )
        delete_run(self.folder)
        return "new"

    def _start(self, command: Sequence[str]) -> None:
        if self.state == "new":
            self.meta: dict[str, Any] = {
                "schema_version": SCHEMA_VERSION,
                "status": "running",
                "fingerprint": self.fingerprint,
                "command": list(command),
                "spec": self.spec.to_dict(),
                "versions": versions(),
                "started": _now(),
                "finished": None,
                "resumed": 0,
                "files": [PREPROCESSING],
            }
        else:
            meta = read_meta(self.folder)
            assert meta is not None
            self.meta = meta
            self.meta.setdefault("files", [PREPROCESSING])
            if self.state == "resumed":
                self.damaged = self.meta["status"] == "finished"
                self.meta["status"] = "running"
                self.meta["resumed"] = self.meta.get("resumed", 0) + 1
        self._remove_leftovers()
        self._save()
        if self.state != "finished":
            (self.folder / PARTS).mkdir(exist_ok=True)
            write_text(self.folder / PREPROCESSING, self.spec.preprocessing.to_yaml())

    def _remove_leftovers(self) -> None:
        for folder in (self.folder, self.folder / PARTS):
            for draft in folder.glob(f".*{TEMPORARY}"):
                draft.unlink(missing_ok=True)
        remove_tree(self.folder / DRAFT)
        if self.state == "finished":
            remove_parts(self.folder, self.fingerprint)

    def _save(self) -> None:
        write_json(self.folder / RUN_JSON, self.meta)

    def update(self, **values: Any) -> None:
        """Write further values into run.json."""
        self.meta.update(values)
        self._save()

    # -- parts ------------------------------------------------------------------------------

    def done(self) -> set[int]:
        """The numbers of the parts that are written and whole; the others are written again."""
        parts = list(read_parts(self.folder, self.fingerprint))
        self.damaged = self.damaged or None in parts
        return {part.number for part in parts if part is not None}

    def append(self, number: int, rows: pd.DataFrame, skipped: Sequence[Skipped]) -> None:
        """Write one part: a chunk's rows, and the images of it that were skipped."""
        write_part(self.folder, self.fingerprint, number, rows, skipped)

    def _parts(self) -> Iterator[Part]:
        return (one for one in read_parts(self.folder, self.fingerprint) if one is not None)

    def skipped(self) -> list[Skipped]:
        """The images that were skipped in the written parts, in order."""
        return [one for part in self._parts() for one in part.skipped]

    def finish(self, skipped: Sequence[Skipped], counts: dict[str, int]) -> None:
        """Make rows.parquet, rows.csv and skipped.csv of the parts, then remove these.

        Raises
        ------
        RunError
            If no image gave a row; run.json then says that the run failed.
        """
        everything = [*skipped, *self.skipped()]
        self.meta["skipped"] = [asdict(one) for one in everything]
        self._own(SKIPPED, ROWS, ROWS_CSV)
        with replacing(self.folder / SKIPPED) as draft:
            pd.DataFrame(self.meta["skipped"], columns=["id", "file", "reason"]).to_csv(
                draft, index=False, lineterminator="\n"
            )
        rows, explained = self._merge()
        self.meta["digests"] = {ROWS: file_digest(self.folder / ROWS)}
        self.meta["counts"] = {**counts, "explained": explained, "rows": rows}
        self.meta["counts"]["skipped"] = len(everything)
        if rows == 0:
            self.update(status="failed", finished=_now())
            first = everything[0]
            raise RunError(
                f"No image could be explained: all {len(everything)} were skipped, the first, "
                f"'{first.file}', because: {first.reason}",
                option=tuple(first.options),
            )
        self.update(status="finished", finished=_now())
        remove_parts(self.folder, self.fingerprint)

    def _merge(self) -> tuple[int, int]:
        """Join the parts one at a time, so that memory doesn't grow; count rows and images."""
        rows, images = 0, 0
        parquet: pq.ParquetWriter | None = None
        csv: pacsv.CSVWriter | None = None
        schema: pa.Schema | None = None
        with replacing(self.folder / ROWS) as draft, replacing(self.folder / ROWS_CSV) as text:
            try:
                for part in (one.rows for one in self._parts()):
                    if part.num_rows == 0:
                        continue
                    part = part.replace_schema_metadata(None)
                    if parquet is None or csv is None:
                        parquet = pq.ParquetWriter(draft, part.schema)
                        csv = pacsv.CSVWriter(text, part.schema)
                        schema = part.schema
                    # A part of an earlier library version may say string where this says large.
                    part = part.cast(schema)
                    parquet.write_table(part)
                    csv.write_table(part)
                    rows += part.num_rows
                    images += len(part.column("image").unique())
            finally:
                if parquet is not None and csv is not None:
                    parquet.close()
                    csv.close()
                else:
                    pq.write_table(pa.table({}), draft)
                    text.touch()
        return rows, images

    def _own(self, *names: str) -> None:
        """Note files as this run's before they are written, so that --force may delete them."""
        self.update(files=sorted({*self.meta["files"], *names}))

    def write_summary(self, summary: pd.DataFrame) -> None:
        """Write summary.csv."""
        self._own(SUMMARY)
        with replacing(self.folder / SUMMARY) as draft:
            summary.to_csv(draft, index=False, lineterminator="\n")


def read_meta(folder: Path) -> dict[str, Any] | None:
    """A folder's run.json, or None where the folder holds no run of ours that can be read."""
    try:
        meta = json.loads((folder / RUN_JSON).read_text(encoding="utf-8"))
        version = meta["schema_version"]
        if isinstance(version, int) and version != SCHEMA_VERSION and "fingerprint" in meta:
            return dict(meta)  # what it holds is for another version to know
        known = (
            version == SCHEMA_VERSION
            and isinstance(meta["fingerprint"], str)
            and isinstance(meta["status"], str)
            and isinstance(meta.get("spec", {}), dict)
            and isinstance(meta.get("resumed", 0), int)
            and isinstance(meta.get("counts", {}), dict)
            and all(isinstance(name, str) for name in meta.get("files", []))
            and all(skipped_of(one) for one in meta.get("skipped", []))
            and (meta.get("status") != "finished" or _is_complete(meta))
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return meta if known else None


def _is_complete(meta: dict[str, Any]) -> bool:
    """Whether a finished run's run.json holds what every reader of it counts on."""
    counts = [meta["counts"][name] for name in ("images", "explained", "rows", "skipped")]
    whole = all(isinstance(one, int) for one in counts) and {"spec", "skipped"} <= set(meta)
    return whole and isinstance(meta["digests"][ROWS], str)


def _rows_are_whole(folder: Path, meta: dict[str, Any]) -> bool:
    try:
        read_rows(folder / ROWS, meta["digests"][ROWS])
    except ValueError:
        return False
    return True


def check_free(folder: Path, *, force: bool = False, beside: Collection[str] = ()) -> None:
    """Raise a :class:`~unetcam.errors.RunError` for a folder with files that no run wrote.

    A folder that is missing or empty, or that holds a run, is free; so is any with `force`.
    """
    if folder.exists() and not folder.is_dir():
        raise RunError(f"'{folder}' is a file: name a folder for the run.")
    if force or not folder.exists() or read_meta(folder) is not None:
        return
    expected = {*_HARMLESS, *beside, FolderLock.NAME}
    foreign = sorted(
        path.name
        for path in folder.iterdir()
        if path.name not in expected and not path.name.endswith(TEMPORARY)
    )
    if foreign and RUN_JSON in foreign:
        raise RunError(
            f"'{folder / RUN_JSON}' is no record of a run, or was damaged: choose a new folder, or "
            "add force=True to begin anew in this one.",
            option="force",
        )
    if foreign:
        raise RunError(
            f"'{folder}' holds files that no run wrote ({_listed(foreign)}): choose a new folder, "
            "or add force=True to write beside them.",
            option="force",
        )


def delete_run(folder: Path) -> None:
    """Delete the files that a run wrote into `folder`, and no others.

    Raises
    ------
    RunError
        If there is no run in the folder.
    """
    meta = read_meta(folder)
    if meta is None:
        raise RunError(f"'{folder}' holds no run: there is no {RUN_JSON} of a run in it.")
    root = folder.resolve()
    parents: set[Path] = set()
    listed = meta.get("files", [])
    for name in listed if isinstance(listed, list) else []:
        with suppress(
            OSError, ValueError, TypeError
        ):  # a name that no file can have: run.json was changed
            path = (folder / name).resolve()
            if root not in path.parents:  # changed by hand: leave what lies elsewhere
                continue
            path.unlink(missing_ok=True)
            if path.parent != root:
                parents.add(path.parent)
    for parent in parents:
        with suppress(OSError):
            parent.rmdir()
    remove_parts(folder, str(meta["fingerprint"]))
    remove_tree(folder / DRAFT)
    (folder / RUN_JSON).unlink(missing_ok=True)


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:4])
    return shown if len(names) <= 4 else f"{shown} and {len(names) - 4} more"


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
