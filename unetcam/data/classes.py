"""The class table: what the classes are called, and how a mask file writes them."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass, field
from pathlib import Path

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
        from unetcam.data.class_files import TABLE_SUFFIXES, read_table

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
