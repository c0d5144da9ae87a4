"""Rows of a class file, whatever their columns are called, and the class table that they make."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from unetcam.data.class_table import ClassTable, Colour
from unetcam.data.files import readable, short
from unetcam.data.samples import IGNORE
from unetcam.errors import DataError

#: What columns are called, without case, spaces and underscores; the first that is there counts.
_NAME_COLUMNS: Final = (
    "name",
    "classname",
    "labelname",
    "categoryname",
    "title",
    "class",
    "category",
    "label",
    "structure",
    "description",
)
_VALUE_COLUMNS: Final = (
    "value",
    "pixelvalue",
    "maskvalue",
    "greyvalue",
    "grayvalue",
    "greylevel",
    "graylevel",
    "id",
    "index",
    "idx",
    "labelid",
    "classid",
    "categoryid",
    "classindex",
    "trainid",
    "label",
    "class",
    "number",
    "no",
    "nr",
    "code",
)
_CERTAIN_VALUES: Final = ("value", "pixelvalue", "maskvalue")
_COLOUR_COLUMNS: Final = ("colour", "color", "rgb", "colorrgb", "rgbcolor", "hex", "hexcolor")
_COLOUR_PARTS: Final = (("r", "g", "b"), ("red", "green", "blue"))
_IGNORE_ROW: Final = "ignore"
_VOID_VALUE: Final = 255
_LONGEST_NAME: Final = 200


@dataclass(frozen=True)
class ClassRow:
    """One row of a class file: a name, and how masks write it where the file says so."""

    name: str
    values: tuple[int, ...] = ()
    colours: tuple[Colour, ...] = ()


def as_name(value: Any) -> str:
    """A class's name as text.

    Raises
    ------
    DataError
        For what is no text and no number.
    """
    if value is None:
        return ""
    if not isinstance(value, (str, int, float)):
        raise DataError(f"a class's name is a {type(value).__name__}; give it as text")
    name = readable(str(value).strip())
    if len(name) > _LONGEST_NAME:
        raise DataError(
            f"a class's name has {len(name)} characters ({short(name, 30)}); shorten it"
        )
    return name


def as_value(value: Any, name: str) -> int:
    """A mask value as a whole number.

    Raises
    ------
    DataError
        For what is none.

    Examples
    --------
    >>> as_value(" 7 ", "cell"), as_value("7.0", "cell"), as_value(7.0, "cell")
    (7, 7, 7)
    """
    try:
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            raise ValueError(type(value).__name__)
        if isinstance(value, int):
            return value
        text = str(value).strip()
        if re.fullmatch(r"[-+]?\d+", text):
            return int(text)
        number = float(text)
        if not number.is_integer():
            raise ValueError(text)
        return int(number)
    except (ValueError, OverflowError) as error:
        given = repr(value)[:40] if isinstance(value, (str, int, float)) else type(value).__name__
        raise DataError(f"the value of '{name}' is {given}; give a whole number") from error


def as_colour(value: Any, name: str) -> Colour:
    """A colour of ``#rrggbb`` or three numbers.

    Raises
    ------
    DataError
        For what is none.
    """
    if isinstance(value, str) and re.fullmatch(r"#?[0-9a-fA-F]{6}", value.strip()):
        number = int(value.strip().lstrip("#"), 16)
        return (number >> 16, number >> 8 & 255, number & 255)
    parts = re.findall(r"-?\d+", value) if isinstance(value, str) else value
    if not isinstance(parts, Sequence) or len(parts) != 3:
        given = repr(value)[:40] if isinstance(value, (str, int, float)) else type(value).__name__
        raise DataError(f"the colour of '{name}' is {given}; write #rrggbb or three numbers")
    red, green, blue = (as_value(part, f"colour of {name}") for part in parts)
    return (red, green, blue)


def rows_of(records: Sequence[Mapping[Any, Any]]) -> list[ClassRow]:
    """The rows of records with columns of usual names.

    Raises
    ------
    DataError
        If no column holds names, several columns hold values that differ, or a column of whole
        numbers has a name that is not understood.
    """
    rows = [{_plain(key): value for key, value in record.items()} for record in records]
    if not rows:
        return []
    columns = list(dict.fromkeys(key for row in rows for key in row))
    name = _name_column(rows, columns)
    value = _value_column(rows, [column for column in columns if column != name], records)
    result = []
    for row in rows:
        text = as_name(row.get(name))
        given = None if value is None else row.get(value)
        listed = given if isinstance(given, (list, tuple)) else [given]
        values = tuple(as_value(one, text) for one in listed if not _blank(one))
        colour = _colour(row, text)
        result.append(ClassRow(text, values, () if colour is None else (colour,)))
    return result


def _plain(key: Any) -> str:
    return re.sub(r"[\s_\-]", "", str(key)).lower()


def _name_column(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    for column in _NAME_COLUMNS:
        if column in columns and not all(_is_whole(row.get(column)) for row in rows):
            return column
    if "name" in columns:  # classes may be called by numbers
        return "name"
    others = ", ".join(short(readable(column), 30) for column in columns[:5])
    raise DataError(
        f"it has no column 'name' (but {others}); begin it with the line name,value,colour"
    )


def _value_column(
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[str],
    records: Sequence[Mapping[Any, Any]],
) -> str | None:
    spelling = {_plain(key): str(key).strip() for record in records for key in record}
    for column in _CERTAIN_VALUES:
        if column in columns:
            return column
    held: dict[tuple[Any, ...], str] = {}
    for column in _VALUE_COLUMNS:
        numbers = tuple(_number(row.get(column)) for row in rows)
        if column in columns and any(number is not None for number in numbers):
            held.setdefault(numbers, column)
    if len(held) > 1:
        names = " and ".join(f"'{short(spelling[column], 30)}'" for column in held.values())
        raise DataError(
            f"its columns {names} differ and either may be what masks hold; call the right one "
            "'value'"
        )
    if held:
        return next(iter(held.values()))
    known = {*_NAME_COLUMNS, *_COLOUR_COLUMNS, *(part for three in _COLOUR_PARTS for part in three)}
    for column in columns:
        values = [_number(row.get(column)) for row in rows]
        distinct = None not in values and len(set(values)) == len(values)
        if column not in known and distinct and values != list(range(len(values))):
            raise DataError(
                f"its column '{short(readable(spelling[column]), 30)}' holds a whole number for "
                "each class; call it 'value' if masks hold these numbers, or remove it"
            )
    return None


def _number(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return tuple(_number(one) for one in value)
    return int(str(value).strip()) if _is_whole(value) else None


def _is_whole(value: Any) -> bool:
    return not isinstance(value, bool) and bool(
        isinstance(value, (int, str)) and re.fullmatch(r"\s*-?\d{1,18}\s*", str(value)[:40])
    )


def _blank(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _colour(row: Mapping[str, Any], name: str) -> Colour | None:
    for column in _COLOUR_COLUMNS:
        if not _blank(row.get(column)):
            return as_colour(row[column], name)
    for parts in _COLOUR_PARTS:
        if not any(_blank(row.get(part)) for part in parts):
            return as_colour([row[part] for part in parts], name)
    return None


def table_of(
    rows: Iterable[ClassRow], own_ignore: int | None, ignore_index: int | None
) -> ClassTable:
    """The class table of rows; those of one name are one class.

    Parameters
    ----------
    rows : iterable of ClassRow
    own_ignore : int or None
        The ignore index that the file names beside its rows.
    ignore_index : int or None
        The one that a person named.

    Raises
    ------
    DataError
        For two ignore indices, and for classes of which only some have a value or a colour.
    """
    classes: dict[str, tuple[list[int], list[Colour]]] = {}
    left_out: tuple[list[int], list[Colour]] = ([], [])
    rows = list(rows)
    often = [value for row in rows for value in row.values]
    for row in rows:
        void = bool(row.values) and all(
            value < 0 or (value == _VOID_VALUE and often.count(value) > 1) for value in row.values
        )
        ignored = void or row.name.strip("_").lower() == _IGNORE_ROW
        values, colours = left_out if ignored else classes.setdefault(row.name, ([], []))
        values += [value for value in row.values if value not in values and not value < 0]
        colours += [colour for colour in row.colours if colour not in colours]
    ignored_values = [] if own_ignore is None else [own_ignore]
    ignored_values += [value for value in left_out[0] if value not in ignored_values]
    if ignored_values and ignore_index is not None and ignore_index not in ignored_values:
        raise DataError(
            f"it leaves out the value {ignored_values[0]}, and ignore_index={ignore_index} was "
            "given; give one of them",
            option="ignore_index",
        )
    first = ignore_index if ignore_index is not None else next(iter(ignored_values), None)
    codes = list(classes.values())
    return ClassTable(
        tuple(classes),
        tuple(_firsts([values for values, _ in codes], "value")),
        tuple(_firsts([colours for _, colours in codes], "colour")) or None,
        first,
        next(iter(left_out[1]), None),
        _more([values for values, _ in codes], [v for v in ignored_values if v != first]),
        _more([colours for _, colours in codes], left_out[1][1:]),
    )


def _firsts(entries: Sequence[Sequence[Any]], what: str) -> list[Any]:
    given = [entry[0] for entry in entries if entry]
    if given and len(given) < len(entries):
        raise DataError(f"only some classes have a {what}; give every class one, or none")
    return given


def _more(entries: Sequence[Sequence[Any]], left_out: Sequence[Any]) -> tuple[tuple[Any, int], ...]:
    more = [(code, index) for index, codes in enumerate(entries) for code in codes[1:]]
    return (*more, *((code, IGNORE) for code in left_out))
