"""Class files as people and tools write them: what each says of names, mask values and colours."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from unetcam.data.class_rows import ClassRow, as_colour, as_name, as_value, rows_of, table_of
from unetcam.data.class_table import ClassTable
from unetcam.data.files import require_file, shown
from unetcam.errors import DataError

CLASS_FILE_SUFFIXES: Final = frozenset(
    {".txt", ".names", ".label", ".ctbl", ".csv", ".tsv", ".json", ".yaml", ".yml"}
)

#: Where a file has its classes among other things, the key that they stand under.
_CLASS_KEYS: Final = (
    "classes",
    "categories",
    "labels",
    "names",
    "id2label",
    "label2id",
    "class_names",
    "channel_def",
)
_MOST_BYTES: Final = 2**24


_WITH_VALUES: Final = re.compile(r"([^=]*?)\s*=\s*(\d{1,18}(?:\s*\+\s*\d{1,18})*)")


def parse_classes(spec: str, ignore_index: int | None = None) -> ClassTable:
    """Read a class table as a person writes it.

    Parameters
    ----------
    spec : str
        Names with commas between them, each with its mask value or values where wanted, as in
        ``background=0,tumour=1+2+4``; or the path of a class file, see :func:`read_class_file`.
    ignore_index : int, optional
        The mask value of pixels that are left out of every number.

    Returns
    -------
    ClassTable

    Raises
    ------
    DataError
        If the file can't be read, or what it holds is no class table.

    Examples
    --------
    >>> parse_classes("background, grey matter, white matter", ignore_index=255).names
    ('background', 'grey matter', 'white matter')
    """
    path = Path(spec)
    if path.suffix.lower() in CLASS_FILE_SUFFIXES:
        return read_class_file(path, ignore_index)
    entries = [entry.strip() for entry in spec.split(",")] if spec.strip() else []
    given = [_WITH_VALUES.fullmatch(entry) for entry in entries]
    matched = [one for one in given if one is not None]
    if not matched:
        return ClassTable(tuple(entries), ignore_index=ignore_index)
    if len(matched) < len(entries):
        bare = entries[given.index(None)]
        raise DataError(
            f"'{bare}' has no value and other classes have one; give each, as in "
            "background=0,cell=1",
            option="classes",
        )
    first, more = [], []
    for index, one in enumerate(matched):
        values = [int(value) for value in one[2].split("+")]
        first.append(values[0])
        more += [(value, index) for value in values[1:]]
    names = tuple(one[1] for one in matched)
    return ClassTable(names, tuple(first), ignore_index=ignore_index, more_values=tuple(more))


def read_class_file(path: Path, ignore_index: int | None = None) -> ClassTable:
    """Read a class file.

    Understood are text (a name per line; ``value name``; ``r g b name``; the label maps of CVAT,
    the label descriptions of ITK-SNAP and the colour tables of 3D Slicer and FreeSurfer), CSV (the
    columns name, and where wanted value and colour, by these names or their usual siblings as
    ``id``, ``index``, ``class`` and ``Pixel Value``), and JSON and YAML (a list of names or of
    records; a mapping of names to values, to lists of values or to colours; a mapping of values
    to names; each at the top or under a key as ``classes``, ``names``, ``labels``, ``categories``
    or ``id2label``, as COCO, nnU-Net, Ultralytics, Supervisely, Roboflow and Hugging Face have
    it). Several rows of one name are one class. A row called ``ignore`` is no class: its value
    and colour are what is left out.

    Parameters
    ----------
    path : Path
    ignore_index : int, optional
        The mask value of pixels that are left out of every number.

    Returns
    -------
    ClassTable
        The classes in the file's order, which is that of the network's channels; those of a
        mapping of values to names, and of nnU-Net's labels, by rising value.

    Raises
    ------
    DataError
        If the file can't be read, or what it holds is no class table.
    """
    require_file(path)
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise DataError("it is larger than 16 MiB; keep the classes alone in a file")
        content = path.read_text(encoding="utf-8-sig")
        rows, own_ignore = _rows(path.suffix.lower(), content)
        return table_of(rows, own_ignore, ignore_index)
    except DataError as error:
        raise DataError(f"the class table {shown(path)} can't be used: {error.clause}") from error
    except (OSError, ValueError, csv.Error, RecursionError) as error:
        raise DataError(
            f"the class table {shown(path)} can't be read; save it as UTF-8 text in the form that "
            f"its suffix {path.suffix} promises"
        ) from error


_Rows = tuple[list[ClassRow], int | None]


def _rows(suffix: str, content: str) -> _Rows:
    if suffix in (".csv", ".tsv"):
        return _csv_rows(content), None
    if suffix == ".json":
        return _structured(json.loads(content))
    if suffix in (".yaml", ".yml"):
        return _structured(_yaml(content))
    return _text_rows(content), None


def _yaml(content: str) -> Any:
    """YAML whose scalars stay text, so that a class called "no" or "1e3" keeps its name."""
    import yaml

    try:
        return yaml.load(content, Loader=yaml.BaseLoader)
    except yaml.YAMLError as error:
        raise ValueError("no YAML") from error


# ------------------------------------------------------------------------------------ text


@dataclass(frozen=True)
class _Line:
    """A form that every line of a text file has."""

    form: re.Pattern[str]

    def row(self, line: str) -> ClassRow | None:
        match = self.form.fullmatch(line)
        if match is None:
            return None
        part = match.groupdict()
        colour = None
        if part.get("r") is not None:
            colour = as_colour([part["r"], part["g"], part["b"]], part["name"])
        value = part.get("value")
        return ClassRow(
            as_name(part["name"].strip().strip('"')),
            () if value is None else (as_value(value, part["name"]),),
            () if colour is None else (colour,),
        )


_NUMBERS = r"(?P<r>\d{1,3})\s+(?P<g>\d{1,3})\s+(?P<b>\d{1,3})"
_FORMS: Final = (
    # CVAT: label:color_rgb:parts:actions
    _Line(re.compile(r"(?P<name>[^:]+):(?:(?P<r>\d+),(?P<g>\d+),(?P<b>\d+))?:[^:]*:[^:]*")),
    # ITK-SNAP: IDX R G B A VIS MSH "LABEL"
    _Line(re.compile(rf'(?P<value>\d+)\s+{_NUMBERS}\s+[\d.]+\s+\d\s+\d\s+(?P<name>".*")')),
    # 3D Slicer, FreeSurfer: number, name, R G B A
    _Line(re.compile(rf"(?P<value>\d+)\s+(?P<name>\S+)\s+{_NUMBERS}\s+\d{{1,3}}")),
    _Line(re.compile(rf"{_NUMBERS}\s+(?P<name>\S.*)")),
    _Line(re.compile(r"(?P<value>\d{1,18})\s*[\s:;,=]\s*(?P<name>[^\d\s].*)")),
    _Line(re.compile(r"(?P<name>.*[^\d\s:;,=])\s*[:;,=\t]\s*(?P<value>\d{1,18})")),
)


def _text_rows(content: str) -> list[ClassRow]:
    lines = [line.strip() for line in content.splitlines()]
    lines = [line for line in lines if line and not line.startswith(("#", "//"))]
    if lines and _has_header(lines[0]):
        return _csv_rows("\n".join(lines))
    for form in _FORMS:
        rows = [form.row(line) for line in lines]
        known = [row for row in rows if row is not None]
        if lines and len(known) == len(lines):
            return known
    return [ClassRow(as_name(line)) for line in lines]


def _has_header(line: str) -> bool:
    cells = [cell.strip().lower() for cell in re.split(r"[,;\t]", line)]
    return len(cells) > 1 and "name" in cells


# ------------------------------------------------------------------------------------- CSV


def _csv_rows(content: str) -> list[ClassRow]:
    header = content.partition("\n")[0]
    delimiter = max(",;\t", key=header.count)
    reader = csv.DictReader(io.StringIO(content, newline=""), delimiter=delimiter)
    records = [{key: value for key, value in row.items() if key} for row in reader]
    return _of_records(records)


def _of_records(records: Iterable[Mapping[Any, Any]]) -> list[ClassRow]:
    return rows_of(list(records))


# --------------------------------------------------------------------------- JSON and YAML


def _structured(content: Any) -> _Rows:
    ignore_index = None
    by_value = False
    if isinstance(content, Mapping):
        ignored = content.get("ignore_index")
        content, key = _unwrapped(content)
        by_value = key == "labels"
        if ignored not in (None, "") and key is not None:
            ignore_index = as_value(ignored, "ignore_index")
    if isinstance(content, Mapping):
        return _mapping_rows(content, by_value=by_value), ignore_index
    if isinstance(content, Sequence) and not isinstance(content, str):
        if content and all(isinstance(row, Mapping) for row in content):
            return _of_records([_without_foreign_id(row) for row in content]), ignore_index
        return [ClassRow(as_name(name)) for name in content], ignore_index
    raise DataError("it is neither a list of classes nor a mapping of names to values")


def _unwrapped(content: Mapping[Any, Any]) -> tuple[Any, str | None]:
    """The classes, and the key that they stand under; None where they are the whole."""
    for key in _CLASS_KEYS:
        inner = content.get(key)
        if isinstance(inner, Mapping) and inner:
            return inner, key
        if isinstance(inner, Sequence) and not isinstance(inner, str) and inner:
            return inner, key
    for inner in content.values():  # a MONAI bundle: network_data_format, outputs, pred
        if isinstance(inner, Mapping) and any(
            isinstance(one, Mapping) for one in (inner.get("outputs"), inner.get("channel_def"))
        ):
            deeper = inner.get("outputs", inner)
            for one in (deeper, *deeper.values()):
                if isinstance(one, Mapping) and isinstance(one.get("channel_def"), Mapping):
                    return one["channel_def"], "channel_def"
    return content, None


def _without_foreign_id(record: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """Drop the number that a labelling tool's database gives a class: no mask holds it."""
    if "shape" in record or "attributes" in record:
        return {key: value for key, value in record.items() if key != "id"}
    return record


def _mapping_rows(content: Mapping[Any, Any], *, by_value: bool) -> list[ClassRow]:
    keys, values = list(content), list(content.values())
    if values and all(isinstance(one, Mapping) for one in values):
        return _of_records([{"name": key, **one} for key, one in content.items()])
    if _are_numbers(keys) and not _are_numbers(values):
        rows = [ClassRow(as_name(v), (as_value(k, str(v)),)) for k, v in content.items()]
        return sorted(rows, key=lambda row: row.values)
    lists = [one for one in values if isinstance(one, (list, tuple))]
    if lists:
        if by_value and any(len(one) > 1 for one in lists):
            raise DataError(
                "its labels are regions that may overlap, and a pixel has one class here; give "
                "the names and values of the single labels"
            )
        return _listed_rows(content)
    if values and all(isinstance(one, str) and one.strip().startswith("#") for one in values):
        return [ClassRow(as_name(k), (), (as_colour(v, str(k)),)) for k, v in content.items()]
    if all(_is_colour_text(key) for key in keys):
        return [ClassRow(as_name(v), (), (as_colour(k, str(v)),)) for k, v in content.items()]
    rows = [ClassRow(as_name(k), (as_value(v, as_name(k)),)) for k, v in content.items()]
    return sorted(rows, key=lambda row: row.values) if by_value else rows


def _listed_rows(content: Mapping[Any, Any]) -> list[ClassRow]:
    """Names to lists: of values, or of the three parts of a colour."""
    lists = {
        as_name(name): list(one) if isinstance(one, (list, tuple)) else [one]
        for name, one in content.items()
    }
    numbers = {name: [as_value(value, name) for value in values] for name, values in lists.items()}
    every = [value for values in numbers.values() for value in values]
    threes = all(len(values) == 3 for values in numbers.values())
    if threes and len(set(every)) < len(every):
        return [ClassRow(name, (), (as_colour(v, name),)) for name, v in numbers.items()]
    if threes:
        raise DataError(
            "its lists of three numbers may be values or colours; write records with the key "
            "'value' or 'colour'"
        )
    return [ClassRow(name, tuple(values)) for name, values in numbers.items()]


def _are_numbers(entries: Sequence[Any]) -> bool:
    def is_number(one: Any) -> bool:
        return (isinstance(one, int) and not isinstance(one, bool)) or (
            isinstance(one, str) and re.fullmatch(r"\s*-?\d{1,18}\s*", one) is not None
        )

    return bool(entries) and all(is_number(one) for one in entries)


def _is_colour_text(one: Any) -> bool:
    return isinstance(one, str) and bool(
        re.fullmatch(r"\s*(#[0-9a-fA-F]{6}|\(?\s*\d+\s*,\s*\d+\s*,\s*\d+\s*\)?)\s*", one)
    )
