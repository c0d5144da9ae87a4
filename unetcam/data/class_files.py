"""Class tables from files: text, CSV, JSON and YAML."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from unetcam.data.classes import ClassTable, Colour
from unetcam.data.files import require_file
from unetcam.data.samples import shown
from unetcam.errors import DataError

TABLE_SUFFIXES = frozenset({".txt", ".csv", ".json", ".yaml", ".yml"})
_IGNORE_ROW = "ignore"


def read_table(path: Path, ignore_index: int | None = None) -> ClassTable:
    """Read a class table; ``ClassTable.parse`` says which forms are understood.

    Raises
    ------
    DataError
        If the file can't be read, or what it holds is no class table.
    """
    require_file(path)
    try:
        content = path.read_text(encoding="utf-8-sig")
        rows, own_ignore = _rows(path, content)
        return _table(rows, own_ignore, ignore_index)
    except DataError as error:
        raise DataError(f"the class table {shown(path)} can't be used: {error}") from error
    except (OSError, ValueError, csv.Error, yaml.YAMLError) as error:
        raise DataError(
            f"the class table {shown(path)} can't be read; save it as UTF-8 text in the form that "
            f"its suffix {path.suffix} promises"
        ) from error


def _rows(path: Path, content: str) -> tuple[list[dict[str, Any]], int | None]:
    suffix = path.suffix.lower()
    if suffix == ".txt":
        lines = (line.strip() for line in content.splitlines())
        return [{"name": line} for line in lines if line and not line.startswith("#")], None
    if suffix == ".csv":
        return _csv_rows(content), None
    return _records(json.loads(content) if suffix == ".json" else yaml.safe_load(content))


def _csv_rows(content: str) -> list[dict[str, Any]]:
    header = content.partition("\n")[0]
    delimiter = max(",;\t", key=header.count)
    reader = csv.DictReader(io.StringIO(content, newline=""), delimiter=delimiter)
    rows = [
        {(key or "").strip().lower(): (value or "").strip() for key, value in row.items() if key}
        for row in reader
    ]
    if rows and "name" not in rows[0]:
        raise DataError("it has no column 'name'; begin it with the line name,value,colour")
    return rows


def _records(content: Any) -> tuple[list[dict[str, Any]], int | None]:
    ignore_index = None
    if isinstance(content, Mapping) and isinstance(content.get("classes"), Sequence | Mapping):
        given = content.get("ignore_index")
        ignore_index = None if given is None else _integer(given, "ignore_index")
        content = content["classes"]
    if isinstance(content, Mapping):
        return [{"name": name, "value": value} for name, value in content.items()], ignore_index
    if isinstance(content, Sequence) and not isinstance(content, str):
        return [
            {str(key).lower(): value for key, value in row.items()}
            if isinstance(row, Mapping)
            else {"name": row}
            for row in content
        ], ignore_index
    raise DataError("it is neither a list of classes nor a mapping of names to values")


def _table(
    rows: list[dict[str, Any]], own_ignore: int | None, ignore_index: int | None
) -> ClassTable:
    names: list[str] = []
    values: list[int | None] = []
    colours: list[Colour | None] = []
    ignore_colour: Colour | None = None
    for row in rows:
        name = str(row.get("name") if row.get("name") is not None else "").strip()
        value = None if _blank(row.get("value")) else _integer(row["value"], f"value of '{name}'")
        colour = _colour(row, name)
        if name.lower() == _IGNORE_ROW:
            own_ignore, ignore_colour = value if value is not None else own_ignore, colour
            continue
        names.append(name)
        values.append(value)
        colours.append(colour)
    if own_ignore is not None and ignore_index is not None and own_ignore != ignore_index:
        raise DataError(
            f"it ignores the value {own_ignore}, but {ignore_index} was asked for; give one of them"
        )
    return ClassTable(
        tuple(names),
        tuple(_all_or_none(values, "value")),
        tuple(_all_or_none(colours, "colour")) or None,
        own_ignore if ignore_index is None else ignore_index,
        ignore_colour,
    )


def _all_or_none(entries: list[Any], what: str) -> list[Any]:
    given = [entry for entry in entries if entry is not None]
    if given and len(given) < len(entries):
        raise DataError(f"only some classes have a {what}; give every class one, or none")
    return given


def _blank(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _integer(value: Any, what: str) -> int:
    try:
        if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
            raise ValueError
        return int(value)
    except (TypeError, ValueError):
        raise DataError(f"the {what} is {value!r}; give a whole number") from None


def _colour(row: Mapping[str, Any], name: str) -> Colour | None:
    given = next((row[key] for key in ("colour", "color", "rgb") if not _blank(row.get(key))), None)
    if given is None and not any(_blank(row.get(key)) for key in "rgb"):
        given = [row[key] for key in "rgb"]
    if given is None:
        return None
    if isinstance(given, str) and re.fullmatch(r"#?[0-9a-fA-F]{6}", given.strip()):
        number = int(given.strip().lstrip("#"), 16)
        return (number >> 16, number >> 8 & 255, number & 255)
    parts = re.findall(r"-?\d+", given) if isinstance(given, str) else given
    if not isinstance(parts, Sequence) or len(parts) != 3:
        raise DataError(f"the colour of '{name}' is {given!r}; write #rrggbb or three numbers")
    red, green, blue = (_integer(part, f"colour of '{name}'") for part in parts)
    return (red, green, blue)
