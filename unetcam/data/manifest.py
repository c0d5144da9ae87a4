"""Manifests: a CSV or JSON file that names each image and its mask."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from unetcam.data.class_table import ClassTable
from unetcam.data.files import key_of, readable, require_file, short, shown
from unetcam.data.samples import Sample, Skipped
from unetcam.errors import DataError

_Row = Mapping[str, Any]


def read_manifest(path: Path, classes: ClassTable | None) -> tuple[list[Sample], list[Skipped]]:
    """Read a manifest; ``find_samples`` says what it holds.

    An image's id is its path as the manifest writes it, without the suffix and without leading
    dots, unless the manifest has a column ``id``.

    Raises
    ------
    DataError
        If the manifest can't be read, or has no column ``image``.
    """
    require_file(path)
    rows = _rows(path)
    if not all("image" in row for row in rows):
        raise DataError(
            f"the manifest {shown(path)} has no column 'image'; give the columns image and mask"
        )
    with_masks = any("mask" in row for row in rows)
    samples: list[Sample] = []
    skipped: list[Skipped] = []
    ids = _ids(rows)
    often = Counter(ids)
    for number, (row, name) in enumerate(zip(rows, ids, strict=True), start=1):
        found: Sample | str
        if often[name] > 1 and name:
            found = (
                f"'{short(name)}' stands {often[name]} times in the manifest {shown(path)}; leave "
                "one entry, or give each an id of its own"
            )
        else:
            found = _sample(row, name, path.parent, classes, with_masks)
        if isinstance(found, Sample):
            samples.append(found)
        else:
            identity = name if name and often[name] == 1 else f"{name} (entry {number})".strip()
            skipped.append(Skipped(identity, _text(row.get("image")), found))
    return samples, skipped


def _rows(path: Path) -> list[_Row]:
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".json"):
        raise DataError(f"the manifest {shown(path)} is neither .csv nor .json; save it as one")
    try:
        content = path.read_text(encoding="utf-8-sig")
        rows = _csv_rows(content) if suffix == ".csv" else json.loads(content)
    except (OSError, ValueError, csv.Error, RecursionError) as error:
        raise DataError(
            f"the manifest {shown(path)} can't be read; save it as {suffix[1:].upper()} in UTF-8"
        ) from error
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
        raise DataError(
            f"the manifest {shown(path)} is no list of entries; write "
            '[{"image": "a.png", "mask": "b.png"}, ...]'
        )
    if not rows:
        raise DataError(f"the manifest {shown(path)} lists no image; add one line per image")
    return [{str(key).strip().lower(): value for key, value in row.items()} for row in rows]


def _csv_rows(content: str) -> list[dict[str, str]]:
    header = content.partition("\n")[0]
    delimiter = max(",;\t", key=header.count)
    reader = csv.DictReader(io.StringIO(content, newline=""), delimiter=delimiter)
    return [{key: value or "" for key, value in row.items() if key} for row in reader]


def _text(value: Any) -> str:
    return readable(value.strip()) if isinstance(value, str) else ""


def _ids(rows: list[_Row]) -> list[str]:
    given = [_text(row.get("id")) for row in rows]
    paths = [_text(row.get("image")) for row in rows]
    keys = [_without_dots(key_of(Path(path))) if path else "" for path in paths]
    often = Counter(keys)
    return [
        name or (key if often[key] == 1 else _without_dots(path))
        for name, key, path in zip(given, keys, paths, strict=True)
    ]


def _without_dots(path: str) -> str:
    """A path's parts without a root and without steps upwards.

    Examples
    --------
    >>> _without_dots("../images/./a"), _without_dots("/data/a")
    ('images/a', 'data/a')
    """
    return "/".join(part for part in Path(path).parts if part not in (Path(path).anchor, "..", "."))


def _sample(
    row: _Row, name: str, folder: Path, classes: ClassTable | None, with_masks: bool
) -> Sample | str:
    """An entry's sample, or what is wrong with it."""
    image = _path(row.get("image"), folder)
    if image is None:
        return "an entry of the manifest has no image; give the path of a file"
    if not with_masks:
        return Sample(name, image)
    mask = row.get("mask")
    if isinstance(mask, Mapping):
        return _with_class_files(Sample(name, image), mask, folder, classes)
    path = _path(mask, folder)
    if path is None:
        return f"the entry of {shown(image)} has no mask; fill in its column 'mask'"
    return Sample(name, image, path)


def _with_class_files(
    sample: Sample, mask: _Row, folder: Path, classes: ClassTable | None
) -> Sample | str:
    if classes is None:
        return f"the entry '{short(sample.id)}' has a mask per class; give a class table too"
    files: dict[int, Path] = {}
    for key, value in mask.items():
        path = _path(value, folder)
        if key not in classes.names or path is None:
            return (
                f"the entry '{short(sample.id)}' has a mask for '{short(readable(str(key)), 40)}' "
                f"that is no path or no class; the classes are {', '.join(classes.names)}"
            )
        files[classes.index(key)] = path
    if not files:
        return f"the entry '{short(sample.id)}' has no mask; name a file for one class at least"
    order = tuple(sorted(files))
    return replace(sample, mask=tuple(files[n] for n in order), mask_classes=order)


def _path(value: Any, folder: Path) -> Path | None:
    return folder / value.strip() if isinstance(value, str) and value.strip() else None
