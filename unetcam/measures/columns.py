"""What the columns of a row mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from unetcam.errors import MeasureError
from unetcam.measures.regions import PROFILE_BANDS, PROFILE_BINS


@dataclass(frozen=True)
class Column:
    """What one number of a row is.

    Attributes
    ----------
    name : str
        The column's name in the table.
    title : str
        What a person reads above it.
    definition : str
        One line.
    unit : str
        ``pixels``, ``share`` (0 to 1), ``ratio``, ``score`` (0 to 1), ``share of maximum``,
        ``count``, ``pixel index`` or ``yes/no``.
    better : {"higher", "lower", None}
        Which direction speaks for the map (or the model), None where neither does.
    question : str
        ``quality``, ``boundary``, ``background``, ``overlap`` or ``concentration``.
    """

    name: str
    title: str
    definition: str
    unit: str
    better: Literal["higher", "lower"] | None
    question: str


def _overlap_columns(region: str, where: str) -> tuple[Column, ...]:
    def column(
        name: str, title: str, definition: str, unit: str = "score", higher: bool = True
    ) -> Column:
        return Column(
            f"{region}_{name}",
            f"{title} ({where})",
            definition.replace("{region}", f"the class in the {where}"),
            unit,
            "higher" if higher else None,
            "overlap",
        )

    return (
        column("iou", "Map IoU", "IoU of {region} and the map at the fixed threshold"),
        column("dice", "Map Dice", "Dice of {region} and the map at the fixed threshold"),
        column("best_iou", "Best map IoU", "Largest IoU with {region} over all thresholds"),
        column("best_dice", "Best map Dice", "Largest Dice with {region} over all thresholds"),
        column(
            "best_threshold",
            "Best threshold",
            "The threshold at which the map fits {region} best",
            "share of maximum",
            False,
        ),
        column("ap", "Average precision", "Map values as scores for the pixels of {region}"),
        column(
            "pointing",
            "Pointing game",
            "Whether the map's maximum lies in {region} or within the tolerance of it",
        ),
        column(
            "energy", "Energy-based pointing game", "Share of the map's mass in {region}", "share"
        ),
        column(
            "rank",
            "Relevance rank accuracy",
            "Share of the highest values, as many as {region} has pixels, that lie in it",
            "share",
        ),
    )


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


def _leak_column(c: int) -> Column:
    return Column(
        f"leak_{c}",
        f"Mass on class {c}",
        f"Share of the map's mass on the pixels whose truth is class {c}",
        "share",
        None,
        "background",
    )


_QUALITY = (
    Column(
        "truth_pixels", "Truth pixels", "Pixels of the class in the truth", "pixels", None,
        "quality",
    ),
    Column(
        "predicted_pixels", "Predicted pixels", "Pixels of the class in the prediction",
        "pixels", None, "quality",
    ),
    Column(
        "class_iou", "Class IoU", "IoU of the prediction with the truth for the class", "score",
        "higher", "quality",
    ),
    Column(
        "class_dice", "Class Dice", "Dice of the prediction with the truth for the class",
        "score", "higher", "quality",
    ),
    Column(
        "present", "Present", "Whether the truth holds the class", "yes/no", None, "quality"
    ),
    Column(
        "predicted", "Predicted", "Whether the prediction holds the class", "yes/no", None,
        "quality",
    ),
    Column(
        "empty", "Empty map", "Whether the map is zero everywhere: no positive evidence",
        "yes/no", "lower", "concentration",
    ),
)  # fmt: skip

_BOUNDARY = (
    Column(
        "boundary_inner", "Inner band", "Mean map value in the class's inner band",
        "share of maximum", "higher", "boundary",
    ),
    Column(
        "boundary_outer", "Outer band", "Mean map value in the band just outside the class",
        "share of maximum", None, "boundary",
    ),
    Column(
        "boundary_interior", "Interior", "Mean map value in the class farther in than the band",
        "share of maximum", None, "boundary",
    ),
    Column(
        "boundary_far", "Far outside", "Mean map value outside, farther than the band",
        "share of maximum", "lower", "boundary",
    ),
    Column(
        "boundary_ratio", "Inner band / interior", "Inner band's mean over the interior's mean",
        "ratio", "higher", "boundary",
    ),
    Column(
        "band_mass_share", "Mass in the band", "Share of the map's mass in both bands", "share",
        None, "boundary",
    ),
    Column(
        "band_area_share", "Area of the band", "Share of the image that both bands cover",
        "share", None, "boundary",
    ),
    Column(
        "band_mass_ratio", "Mass / area of the band",
        "Share of mass in the band over its share of area; 1: no notice of the boundary",
        "ratio", "higher", "boundary",
    ),
)  # fmt: skip

_BACKGROUND = (
    Column(
        "outside_share", "Mass outside", "Share of the map's mass outside the class", "share",
        "lower", "background",
    ),
    Column(
        "outside_far_share", "Mass far outside",
        "Share of the map's mass outside the class and beyond the band", "share", "lower",
        "background",
    ),
    Column(
        "hot_background", "Hot background",
        "Share of the pixels outside that are hotter than half the maximum", "share", "lower",
        "background",
    ),
    Column(
        "hot_count", "Hot components", "Connected hot components outside the class", "count",
        "lower", "background",
    ),
    Column(
        "hot_area", "Hot area", "Pixels of all hot components outside", "pixels", "lower",
        "background",
    ),
    Column(
        "hot_largest_area", "Largest hot component", "Pixels of the largest one outside",
        "pixels", "lower", "background",
    ),
    *(
        Column(
            f"hot_{axis}", f"Largest hot component, {axis}",
            f"Centroid of the largest hot component outside along {axis}", "pixel index", None,
            "background",
        )
        for axis in "zyx"
    ),
)  # fmt: skip

_CONCENTRATION = (
    Column(
        "entropy", "Entropy", "Normalised entropy; 0: one pixel, 1: even over the image",
        "score", None, "concentration",
    ),
    Column(
        "gini", "Gini", "Gini index; 0: even over the image, near 1: a few pixels", "score",
        None, "concentration",
    ),
    Column(
        "effective_area", "Effective area",
        "Share of the image that an even map of the same concentration would fill", "share",
        None, "concentration",
    ),
)  # fmt: skip

_PROFILE = tuple(_profile_column(k) for k in range(PROFILE_BINS))
_OVERLAP = _overlap_columns("truth", "truth") + _overlap_columns("prediction", "prediction")

COLUMNS: tuple[Column, ...] = (
    *_QUALITY, *_BOUNDARY, *_PROFILE, *_BACKGROUND, *_OVERLAP, *_CONCENTRATION
)  # fmt: skip
"""Every number that does not depend on how many classes there are; see :func:`columns`."""


def columns(num_classes: int, spatial_dims: int = 2) -> tuple[Column, ...]:
    """The columns of a row in the order that :func:`~unetcam.measures.measure` gives them.

    Parameters
    ----------
    num_classes : int
        The number of classes C; there is a ``leak_j`` for each.
    spatial_dims : int
        2 for images, 3 for volumes, which have ``hot_z`` too.

    Examples
    --------
    >>> [c.name for c in columns(3)][-24:-21]
    ['leak_0', 'leak_1', 'leak_2']
    """
    background = [c for c in _BACKGROUND if spatial_dims == 3 or c.name != "hot_z"]
    leaks = [_leak_column(c) for c in range(num_classes)]
    return (*_QUALITY, *_BOUNDARY, *_PROFILE, *background, *leaks, *_OVERLAP, *_CONCENTRATION)


def column(name: str) -> Column:
    """The column of a name, ``leak_j`` among them.

    Raises
    ------
    MeasureError
        If no number has that name.

    Examples
    --------
    >>> column("gini").title, column("leak_2").title
    ('Gini', 'Mass on class 2')
    """
    found = {c.name: c for c in COLUMNS}.get(name)
    if found is not None:
        return found
    stem, _, index = name.partition("_")
    if stem == "leak" and index.isdecimal():
        return _leak_column(int(index))
    raise MeasureError(f"no number is called {name!r}; columns() lists them")
