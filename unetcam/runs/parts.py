"""The tables of a run's folder: parts while it goes, rows when it is done, each with a digest."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from unetcam.data import Skipped
from unetcam.runs.files import replacing

PARTS = "parts"
#: What a row says about itself; every other column is a measure.
KEYS = ("image", "layer", "stage_stride", "class_index", "class_name", "target", "method")

#: A part's name holds the digest of its bytes, so that a damaged one is known.
_PART = re.compile(r"(\d{6})-([0-9a-f]{16})\.parquet")
_FINGERPRINT, _SKIPPED = b"unetcam.fingerprint", b"unetcam.skipped"
#: What reading a damaged table may raise.
_DAMAGED = (OSError, pa.ArrowException, ValueError, KeyError, TypeError)


@dataclass(frozen=True)
class Part:
    """One written chunk of images.

    Attributes
    ----------
    number : int
    rows : pyarrow.Table
    skipped : list of Skipped
        The images of the chunk that were skipped.
    """

    number: int
    rows: pa.Table
    skipped: list[Skipped]


def write_part(
    folder: Path, fingerprint: str, number: int, rows: pd.DataFrame, skipped: Sequence[Skipped]
) -> None:
    """Write a chunk's rows, and the images of it that were skipped, whole or not at all.

    Parameters
    ----------
    folder : Path
        The run's.
    fingerprint : str
        The run's.
    number : int
    rows : DataFrame
    skipped : sequence of Skipped
    """
    table = pa.Table.from_pandas(rows, preserve_index=False)
    # pandas' own metadata names its version: the files of two machines would differ
    table = table.replace_schema_metadata(
        {_FINGERPRINT: fingerprint, _SKIPPED: json.dumps([asdict(one) for one in skipped])}
    )
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    content = buffer.getvalue()
    digest = hashlib.sha256(content).hexdigest()[:16]
    with replacing(folder / PARTS / f"{number:06d}-{digest}.parquet") as draft:
        draft.write_bytes(content)


def read_parts(folder: Path, fingerprint: str) -> Iterator[Part | None]:
    """The parts that the run with this fingerprint wrote, in order; None for a damaged one."""
    for path in _paths(folder):
        if not _is_of_another_run(path, fingerprint):
            yield _read(path)


def remove_parts(folder: Path, fingerprint: str) -> None:
    """Remove the parts that the run with this fingerprint wrote, and no other file."""
    for path in _paths(folder):
        if not _is_of_another_run(path, fingerprint):
            path.unlink(missing_ok=True)
    with suppress(OSError):
        (folder / PARTS).rmdir()


def _paths(folder: Path) -> list[Path]:
    paths = sorted((folder / PARTS).glob("*.parquet"))
    return [path for path in paths if _PART.fullmatch(path.name)]


def _is_of_another_run(path: Path, fingerprint: str) -> bool:
    try:
        metadata = pq.read_schema(path).metadata or {}
    except _DAMAGED:
        return False
    return bool(metadata.get(_FINGERPRINT) != fingerprint.encode())


def _read(path: Path) -> Part | None:
    match = _PART.fullmatch(path.name)
    try:
        content = path.read_bytes()
        if match is None or hashlib.sha256(content).hexdigest()[:16] != match[2]:
            return None
        table = pq.read_table(io.BytesIO(content))
        skipped = json.loads((table.schema.metadata or {})[_SKIPPED])
        return Part(int(match[1]), table, [skipped_of(one) for one in skipped])
    except _DAMAGED:
        return None


def read_rows(path: Path, digest: str) -> pd.DataFrame:
    """A finished run's rows.

    Parameters
    ----------
    path : Path
    digest : str
        SHA-256 of the file, as the run noted it.

    Raises
    ------
    ValueError
        For what is no table of rows, or one that was changed since.
    """
    try:
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != digest:
            raise ValueError("It was changed since it was written.")
        rows: pd.DataFrame = pq.read_table(io.BytesIO(content)).to_pandas()
    except _DAMAGED as error:
        raise ValueError(f"It can't be read ({type(error).__name__}).") from error
    lacking = [name for name in KEYS if name not in rows]
    if lacking or rows.empty:
        raise ValueError(f"It has no column '{lacking[0]}'." if lacking else "It is empty.")
    return rows


def skipped_of(values: Any) -> Skipped:
    """A skipped image from the values that were written of it.

    Raises
    ------
    ValueError, TypeError, KeyError
        For what was not written so.
    """
    names = ("id", "file", "reason")
    if not all(isinstance(values[name], str) for name in names):
        raise ValueError("No skipped image.")
    options = tuple(map(str, values.get("options", ())))
    return Skipped(values["id"], values["file"], values["reason"], options)
