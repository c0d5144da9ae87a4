"""The class table: what the classes are called, and how a mask file writes them."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from unetcam.data.files import readable
from unetcam.data.samples import IGNORE
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
    more_values : tuple of (int, int)
        Further mask values, each with the class index that it stands for; -1 for values that are
        left out. So several values of a mask can be one class.
    more_colours : tuple of ((int, int, int), int)
        The same for colour-coded masks.
    accept_255 : bool
        Whether 255 stands for the foreground in a mask that holds 0 and 255 only, where there are
        two classes with the values 0 and 1. `survey` decides it for a whole data set.
    label_in_alpha : bool or None
        Whether the classes lie in the masks' opacity and not in their colours. None: judged mask
        by mask; `survey` decides it for a whole data set.

    Raises
    ------
    DataError
        If names, values or colours are missing, doubled, or of different number.

    Notes
    -----
    A table of two classes with the default values 0 and 1 also understands masks that hold only
    0 and 255, where 255 is the foreground (unless 255 is left out, or `accept_255` is False).

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
    more_values: tuple[tuple[int, int], ...] = ()
    more_colours: tuple[tuple[Colour, int], ...] = ()
    accept_255: bool = True
    label_in_alpha: bool | None = None

    def __post_init__(self) -> None:
        names = tuple(readable(str(name).strip()) for name in self.names)
        object.__setattr__(self, "names", names)
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
        _no_doubles((*self.values, *(value for value, _ in self.more_values)), "value")
        for value in (*self.values, *(v for v, _ in self.more_values), self.ignore_index or 0):
            if not -(2**63) <= value < 2**63:
                raise DataError(f"{value:.3g} is no mask value; give a whole number of 64 bits")
        for _, index in (*self.more_values, *self.more_colours):
            if not IGNORE <= index < len(self.names):
                raise DataError(f"there is no class with the index {index}; name its class")
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
        more = tuple(colour for colour, _ in self.more_colours)
        every = (*self.colours, *([self.ignore_colour] if self.ignore_colour else []), *more)
        for colour in every:
            if len(colour) != 3 or not all(0 <= part <= 255 for part in colour):
                raise DataError(f"{colour} is no RGB colour; give three numbers from 0 to 255")
        _no_doubles(every, "colour")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def is_plain_binary(self) -> bool:
        """Whether 0/255 masks are understood: two classes, values 0 and 1, 255 not ignored."""
        left_out = 255 in (self.ignore_index, *(value for value, _ in self.more_values))
        return self.accept_255 and self.values == (0, 1) and not left_out

    def value_codes(self) -> list[tuple[int, int]]:
        """Every mask value that is understood, with its class index; -1 where it is left out.

        Examples
        --------
        >>> ClassTable(("background", "cell"), ignore_index=9).value_codes()
        [(0, 0), (1, 1), (9, -1)]
        """
        ignored = [] if self.ignore_index is None else [(self.ignore_index, IGNORE)]
        values = [(value, index) for index, value in enumerate(self.values)]
        return [*values, *self.more_values, *ignored]

    def colour_codes(self) -> list[tuple[Colour, int]]:
        """Every colour that is understood, with its class index; -1 where it is left out."""
        ignored = [] if self.ignore_colour is None else [(self.ignore_colour, IGNORE)]
        colours = [(colour, index) for index, colour in enumerate(self.colours or ())]
        return [*colours, *self.more_colours, *ignored]

    def to_dict(self) -> dict[str, Any]:
        """The table as plain values, for a run."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> ClassTable:
        """The table of what `to_dict` gave, be it written as JSON and read back.

        Raises
        ------
        DataError
            If that is no class table.

        Examples
        --------
        >>> import json
        >>> table = ClassTable(("background", "cell"), more_values=((7, 1),))
        >>> ClassTable.from_dict(json.loads(json.dumps(table.to_dict()))) == table
        True
        """
        known = {one.name for one in fields(cls)}
        try:
            return cls(**{name: _tuples(value) for name, value in content.items() if name in known})
        except (TypeError, ValueError, AttributeError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError("what was written down is no class table; write it anew") from error

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


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, (list, tuple)) else value


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
