"""The one table of what is measured: each number's name, unit, range, direction and question."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, get_args

from unetcam.errors import MeasureError
from unetcam.measures.regions import PROFILE_BANDS, PROFILE_BINS

Question = Literal["quality", "boundary", "background", "overlap", "concentration"]
Unit = Literal[
    "pixels", "share", "ratio", "score", "share of maximum", "count", "pixel index", "yes/no"
]
Direction = Literal["higher", "lower"]

QUESTIONS: Mapping[Question, str] = MappingProxyType(
    {
        "quality": "How good is the segmentation itself?",
        "boundary": "Does the map act on the class's boundary?",
        "background": "Does the map act where the class is not?",
        "overlap": "Does the map lie on the class, as the truth and as the prediction has it?",
        "concentration": "How far is the map spread over the image?",
    }
)
"""What each group of numbers asks."""

_UPPER: Mapping[Unit, float] = {
    "pixels": float("inf"),
    "share": 1.0,
    "ratio": float("inf"),
    "score": 1.0,
    "share of maximum": 1.0,
    "count": float("inf"),
    "pixel index": float("inf"),
    "yes/no": 1.0,
}


@dataclass(frozen=True)
class Column:
    """What one number of a row is.

    Attributes
    ----------
    name : str
        The column's name in the rows.
    title : str
        What a person reads above it.
    explanation : str
        One line.
    unit : str
        ``pixels``, ``share``, ``ratio``, ``score``, ``share of maximum``, ``count``,
        ``pixel index`` or ``yes/no``.
    direction : {"higher", "lower", None}
        Which end speaks for the map (or the model); None where neither does.
    question : str
        A key of :data:`QUESTIONS`.

    Examples
    --------
    >>> gini = column("gini")
    >>> gini.title, gini.unit, gini.range, gini.direction, QUESTIONS[gini.question]
    ('Gini', 'score', (0.0, 1.0), None, 'How far is the map spread over the image?')
    """

    name: str
    title: str
    explanation: str
    unit: Unit
    direction: Direction | None
    question: Question

    @property
    def range(self) -> tuple[float, float]:
        """The smallest and the largest value that the number can have, by its unit."""
        return 0.0, _UPPER[self.unit]


def _table(
    question: Question, *rows: tuple[str, str, str, Unit, Direction | None]
) -> tuple[Column, ...]:
    return tuple(
        Column(name, title, explanation, unit, direction, question)
        for name, title, explanation, unit, direction in rows
    )


_QUALITY = _table(
    "quality",
    ("truth_pixels", "Truth pixels", "Pixels of the class in the truth", "pixels", None),
    ("predicted_pixels", "Predicted pixels", "Pixels of the class in the prediction", "pixels",
     None),
    ("class_iou", "Class IoU", "IoU of the prediction with the truth for the class", "score",
     "higher"),
    ("class_dice", "Class Dice", "Dice of the prediction with the truth for the class", "score",
     "higher"),
    ("present", "Present", "Whether the truth holds the class", "yes/no", None),
    ("predicted", "Predicted", "Whether the prediction holds the class", "yes/no", None),
)  # fmt: skip

_EMPTY = _table(
    "concentration",
    ("empty", "Empty map", "Whether the map is zero everywhere: no positive evidence", "yes/no",
     "lower"),
)  # fmt: skip


def _predicted_column(c: int) -> Column:
    return Column(
        f"predicted_as_{c}",
        f"Predicted as class {c}",
        f"Pixels whose truth is the row's class and whose prediction is class {c}",
        "pixels",
        None,
        "quality",
    )


_BOUNDARY = _table(
    "boundary",
    ("boundary_inner", "Inner band", "Mean map value in the class's inner band",
     "share of maximum", "higher"),
    ("boundary_outer", "Outer band", "Mean map value in the band just outside the class",
     "share of maximum", None),
    ("boundary_interior", "Interior", "Mean map value in the class farther in than the band",
     "share of maximum", None),
    ("boundary_far", "Far outside", "Mean map value outside, farther than the band",
     "share of maximum", "lower"),
    ("boundary_ratio", "Inner band / interior", "Inner band's mean over the interior's mean",
     "ratio", "higher"),
    ("band_mass_share", "Mass in the band", "Share of the map's mass in both bands", "share",
     None),
    ("band_area_share", "Area of the band", "Share of the image that both bands cover", "share",
     None),
    ("band_mass_ratio", "Mass / area of the band",
     "Share of mass in the band over its share of area; 1: no notice of the boundary", "ratio",
     "higher"),
)  # fmt: skip


def _profile_column(k: int) -> Column:
    width = 2 * PROFILE_BANDS / PROFILE_BINS
    low = -PROFILE_BANDS + k * width
    side = "inside" if k < PROFILE_BINS // 2 else "outside"
    return Column(
        f"profile_{k:02d}",
        f"Profile {low:+.1f} to {low + width:+.1f} bands",
        f"Mean map value {side} the class at {low:+.1f} to {low + width:+.1f} band widths of "
        "signed distance to the contour",
        "share of maximum",
        None,
        "boundary",
    )


_PROFILE = tuple(_profile_column(k) for k in range(PROFILE_BINS))

_BACKGROUND = _table(
    "background",
    ("outside_share", "Mass outside", "Share of the map's mass outside the class", "share",
     "lower"),
    ("outside_far_share", "Mass far outside",
     "Share of the map's mass outside the class and beyond the band", "share", "lower"),
    ("hot_background", "Hot background",
     "Share of the pixels outside that are hotter than half the maximum", "share", "lower"),
    ("hot_count", "Hot components", "Connected hot components outside the class", "count",
     "lower"),
    ("hot_area", "Hot area", "Pixels of all hot components outside", "pixels", "lower"),
    ("hot_largest_area", "Largest hot component", "Pixels of the largest one outside", "pixels",
     "lower"),
)  # fmt: skip

_HOT_CENTRE = _table(
    "background",
    *(
        (f"hot_{axis}", f"Largest hot component, {axis}",
         f"Centroid of the largest hot component outside along {axis}", "pixel index", None)
        for axis in "zyx"
    ),
)  # fmt: skip


def _leak_column(c: int) -> Column:
    return Column(
        f"leak_{c}",
        f"Mass on class {c}",
        f"Share of the map's mass on the pixels whose truth is class {c}",
        "share",
        None,
        "background",
    )


def _overlap_columns(region: Literal["truth", "prediction"]) -> tuple[Column, ...]:
    inside = f"the class in the {region}"
    return _table(
        "overlap",
        (f"{region}_iou", f"Map IoU ({region})", f"IoU of {inside} and the map at the fixed "
         "threshold", "score", "higher"),
        (f"{region}_dice", f"Map Dice ({region})", f"Dice of {inside} and the map at the fixed "
         "threshold", "score", "higher"),
        (f"{region}_best_iou", f"Best map IoU ({region})", f"Largest IoU with {inside} over all "
         "thresholds", "score", "higher"),
        (f"{region}_best_dice", f"Best map Dice ({region})", f"Largest Dice with {inside} over "
         "all thresholds", "score", "higher"),
        (f"{region}_best_threshold", f"Best threshold ({region})", "The threshold at which the "
         f"map fits {inside} best", "share of maximum", None),
        (f"{region}_ap", f"Average precision ({region})", "Map values as scores for the pixels "
         f"of {inside}", "score", "higher"),
        (f"{region}_pointing", f"Pointing game ({region})", f"Whether the map's maximum lies in "
         f"{inside} or within the tolerance of it", "score", "higher"),
        (f"{region}_energy", f"Energy-based pointing game ({region})", "Share of the map's mass "
         f"in {inside}", "share", "higher"),
        (f"{region}_rank", f"Relevance rank accuracy ({region})", "Share of the highest values, "
         f"as many as {inside} has pixels, that lie in it", "share", "higher"),
    )  # fmt: skip


_OVERLAP = (*_overlap_columns("truth"), *_overlap_columns("prediction"))

_CONCENTRATION = _table(
    "concentration",
    ("entropy", "Entropy", "Normalised entropy; 0: one pixel, 1: even over the image", "score",
     None),
    ("gini", "Gini", "Gini index; 0: even over the image, near 1: a few pixels", "score", None),
    ("effective_area", "Effective area",
     "Share of the image that an even map of the same concentration would fill", "share", None),
)  # fmt: skip

COLUMNS: tuple[Column, ...] = (
    *_QUALITY, *_EMPTY, *_BOUNDARY, *_PROFILE, *_BACKGROUND, *_HOT_CENTRE, *_OVERLAP,
    *_CONCENTRATION,
)  # fmt: skip
"""Every number that does not depend on how many classes there are; see :func:`columns`."""

_PER_CLASS = {"leak": _leak_column, "predicted_as": _predicted_column}
_BY_NAME: Mapping[str, Column] = {one.name: one for one in COLUMNS}


def columns(num_classes: int, spatial_dims: int = 2) -> tuple[Column, ...]:
    """The columns of a row in the order that :func:`~unetcam.measures.measure` gives them.

    Parameters
    ----------
    num_classes : int
        The number of classes C; there is a ``leak_j`` and a ``predicted_as_j`` for each.
    spatial_dims : int
        2 for images, 3 for volumes, which have ``hot_z`` too.

    Returns
    -------
    tuple of Column

    Examples
    --------
    >>> [c.name for c in columns(3) if c.name.startswith("leak")]
    ['leak_0', 'leak_1', 'leak_2']
    """
    confused = (_predicted_column(c) for c in range(num_classes))
    return (*_QUALITY, *confused, *_EMPTY, *_BOUNDARY, *_PROFILE,
            *background_columns(num_classes, spatial_dims), *_OVERLAP, *_CONCENTRATION)  # fmt: skip


def background_columns(num_classes: int, spatial_dims: int) -> tuple[Column, ...]:
    """The columns of :func:`~unetcam.measures.background_activation`, in order.

    Parameters
    ----------
    num_classes : int
        The number of classes C.
    spatial_dims : int
        2 for images, 3 for volumes.

    Returns
    -------
    tuple of Column
    """
    leaks = (_leak_column(c) for c in range(num_classes))
    return (*_BACKGROUND, *_HOT_CENTRE[-spatial_dims:], *leaks)


def names_of(question: Question) -> tuple[str, ...]:
    """The names of a question's numbers that do not depend on how many classes there are.

    >>> names_of("concentration")[:3]
    ('empty', 'entropy', 'gini')
    """
    if question not in get_args(Question):
        raise MeasureError(
            f"There is no question '{question}': choose from {', '.join(get_args(Question))}."
        )
    return tuple(one.name for one in COLUMNS if one.question == question)


def column(name: str) -> Column:
    """The column of a name, ``leak_j`` and ``predicted_as_j`` among them.

    Raises
    ------
    MeasureError
        If no number has that name.

    Examples
    --------
    >>> column("gini").title, column("leak_2").title
    ('Gini', 'Mass on class 2')
    """
    if name in _BY_NAME:
        return _BY_NAME[name]
    stem, _, index = name.rpartition("_")
    if stem in _PER_CLASS and index.isdecimal():
        return _PER_CLASS[stem](int(index))
    raise MeasureError(f"No number is called {name!r}: columns() lists them.")


def of_the_map(name: str) -> bool:
    """Whether a number of a row says something of its map, so that an empty map has none.

    Those of the network and of the image do not, and neither do a measure's null, which is of
    other maps, and ``empty`` itself.

    >>> of_the_map("gini"), of_the_map("class_iou"), of_the_map("truth_energy_null_low")
    (True, False, False)
    """
    if name.removesuffix("_low").removesuffix("_high").endswith("_null"):
        return False
    try:
        return column(name).question != "quality" and name != "empty"
    except MeasureError:
        return True
