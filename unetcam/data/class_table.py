"""The class table: what the classes are called, and how a mask file writes them."""

from __future__ import annotations

import colorsys
import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from unetcam.data.files import require_file, shown
from unetcam.errors import DataError

Colour = tuple[int, int, int]

# Okabe and Ito's palette ("Color universal design", 2008) without its black, behind a grey for
# the first class, which is the background in nearly every table.
_PALETTE: tuple[Colour, ...] = (
    (153, 153, 153),
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)
_GOLDEN_ANGLE = 0.381966


@dataclass(frozen=True)
class ClassTable:
    """Names of the classes, in the order of the network's channels, and how masks write them.

    Parameters
    ----------
    names : tuple of str
        One name per class; at least two.
    values : tuple of int
        The value that stands for each class in an index mask; 0, 1, 2, ... unless given.
    colours : tuple of (int, int, int) or None
        RGB (0-255) of each class: how colour-coded masks write it, and how the report shows it.
    ignore_index : int or None
        The mask value of pixels that are left out of every number.
    ignore_colour : (int, int, int) or None
        The same for colour-coded masks.

    Raises
    ------
    DataError
        If names, values or colours are missing, doubled, or of different number.

    Notes
    -----
    A table of two classes with the default values 0 and 1 also understands masks that hold only
    0 and 255, where 255 is the foreground (unless 255 is the ignore index).

    Examples
    --------
    >>> table = ClassTable(("background", "cell"))
    >>> table.values, len(table)
    ((0, 1), 2)
    >>> table.display_colours()
    ['#999999', '#e69f00']
    """

    names: tuple[str, ...]
    values: tuple[int, ...] = field(default=())
    colours: tuple[Colour, ...] | None = None
    ignore_index: int | None = None
    ignore_colour: Colour | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(str(name).strip() for name in self.names))
        values = tuple(int(value) for value in self.values) or tuple(range(len(self.names)))
        object.__setattr__(self, "values", values)
        self._check_names()
        self._check_codes()

    def _check_names(self) -> None:
        if len(self.names) < 2:
            given = f" (only '{self.names[0]}' was given)" if self.names else ""
            raise DataError(
                f"a class table needs at least two classes{given}; name the background too, "
                "as in background,cell"
            )
        if not all(self.names):
            raise DataError("a class has no name; give every class a name")
        _no_doubles(self.names, "name")

    def _check_codes(self) -> None:
        if len(self.values) != len(self.names):
            raise DataError(
                f"the class table has {len(self.names)} names and {len(self.values)} values; "
                "give one value per class"
            )
        _no_doubles(self.values, "value")
        if self.ignore_index is not None and self.ignore_index in self.values:
            name = self.names[self.values.index(self.ignore_index)]
            raise DataError(
                f"the ignore index {self.ignore_index} is also the value of the class '{name}'; "
                "choose one of the two"
            )
        if self.colours is None:
            return
        if len(self.colours) != len(self.names):
            raise DataError(
                f"the class table has {len(self.names)} names and {len(self.colours)} colours; "
                "give every class a colour, or none"
            )
        every = (*self.colours, *([self.ignore_colour] if self.ignore_colour else []))
        for colour in every:
            if len(colour) != 3 or not all(0 <= part <= 255 for part in colour):
                raise DataError(f"{colour} is no RGB colour; give three numbers from 0 to 255")
        _no_doubles(every, "colour")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def is_plain_binary(self) -> bool:
        """Whether 0/255 masks are understood: two classes, values 0 and 1, 255 not ignored."""
        return self.values == (0, 1) and self.ignore_index != 255

    @classmethod
    def parse(cls, spec: str, ignore_index: int | None = None) -> ClassTable:
        """Read a class table as a person writes it.

        Parameters
        ----------
        spec : str
            Names with commas between them, or the path of a file: ``.txt`` (a name per line),
            ``.csv`` (columns ``name`` and, where wanted, ``value`` and ``colour``, or ``r``,
            ``g``, ``b``), ``.json`` or ``.yaml`` (a list of names, a list of records with those
            keys, or a mapping of names to values; either may stand under ``classes`` beside
            ``ignore_index``). A row called ``ignore`` is no class: its value and colour are what
            is left out.
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
        >>> ClassTable.parse("background, grey matter, white matter", ignore_index=255).names
        ('background', 'grey matter', 'white matter')
        """

        path = Path(spec)
        if path.suffix.lower() in TABLE_SUFFIXES:
            return read_table(path, ignore_index)
        names = tuple(name.strip() for name in spec.split(",")) if spec.strip() else ()
        return cls(names, ignore_index=ignore_index)

    def index(self, name: str) -> int:
        """The class index of a name.

        Raises
        ------
        DataError
            If no class is called so.

        Examples
        --------
        >>> ClassTable(("background", "cell")).index("cell")
        1
        """
        if name not in self.names:
            raise DataError(f"there is no class '{name}'; the classes are {', '.join(self.names)}")
        return self.names.index(name)

    def display_colours(self) -> list[str]:
        """A colour per class for figures, as ``#rrggbb``.

        The table's own colours where it has them; else a grey for the first class and the seven
        chromatic colours of Okabe and Ito, which colour-blind people can tell apart. Beyond
        eight classes the hues go on by the golden angle and are told apart by their labels.
        """
        return [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in self.colours or _colours(len(self))]


def _no_doubles(entries: tuple[object, ...], what: str) -> None:
    doubled = sorted({str(entry) for entry in entries if entries.count(entry) > 1})
    if doubled:
        raise DataError(
            f"the {what} {doubled[0]} stands for two classes; give every class its own {what}"
        )


def _colours(count: int) -> list[Colour]:
    colours = list(_PALETTE[:count])
    step = 0
    while len(colours) < count:
        red, green, blue = colorsys.hls_to_rgb(
            (step * _GOLDEN_ANGLE) % 1.0, (0.35, 0.7, 0.5)[step % 3], (0.65, 0.9)[step % 2]
        )
        colour = (round(red * 255), round(green * 255), round(blue * 255))
        if colour not in colours:
            colours.append(colour)
        step += 1
    return colours


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
