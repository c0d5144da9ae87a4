"""A look over a whole data set, so that what is true of all its files is decided once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from unetcam.data.class_table import ClassTable
from unetcam.data.formats import is_volume, read_picture, value_type
from unetcam.data.mask_values import whole_numbers
from unetcam.data.masks import varies_in_alpha_only
from unetcam.data.options import DataOptions
from unetcam.data.pictures import Picture
from unetcam.data.preprocessing import Preprocessing, full_scale
from unetcam.data.samples import Sample
from unetcam.data.whole_volumes import AS_STORED
from unetcam.errors import DataError

MOST_FILES: Final = 512
"""So many masks, and as many images, are looked at; of more, so many at even distances."""

MOST_VOLUMES: Final = 32

_MOST_VALUES: Final = 1024
_VOID: Final = 255


@dataclass(frozen=True)
class MaskFacts:
    """What one mask holds.

    Attributes
    ----------
    name : str
    values : frozenset of int
        Of a mask with one band of whole numbers; empty for any other.
    alpha : bool or None
        Whether only its opacity varies; None where it has none.
    """

    name: str
    values: frozenset[int] = frozenset()
    alpha: bool | None = None


def survey(
    samples: Sequence[Sample], classes: ClassTable, options: DataOptions | None = None
) -> tuple[ClassTable, tuple[str, ...]]:
    """Decide how the masks of a data set write the classes.

    Masks are looked at (up to 512, of volumes 32, at even distances): whether 255 is the
    foreground or a void, whether the classes start at 1, whether they lie in opacity.

    Parameters
    ----------
    samples : sequence of Sample
    classes : ClassTable
    options : DataOptions, optional

    Returns
    -------
    classes : ClassTable
        With everything decided that `read_mask` would else judge mask by mask.
    remarks : tuple of str
        What a person should know: sentences.

    Raises
    ------
    DataError
        If the masks can be understood in two ways.
    """
    options = options or DataOptions()
    if options.instances:
        return classes, ()
    single = [one for one in samples if not one.mask_classes]
    whole = {path: one.orientation for one in single for path in one.mask_files}
    facts = list(_facts(whole, options))
    if not facts:
        return classes, ()
    alphas = [one.alpha for one in facts if one.alpha is not None]
    if alphas:
        classes = replace(classes, label_in_alpha=all(alphas))
    in_colour = classes.label_in_alpha is False  # then what a mask's opacity holds is no class
    coded = [one for one in facts if one.values and not (in_colour and one.alpha)]
    if not coded or classes.colours is not None:
        return classes, ()
    if classes.is_plain_binary:
        classes = _foreground(coded, classes)
    return classes, tuple(_remarks(coded, classes))


def _facts(paths: Mapping[Path, str | None], options: DataOptions) -> Iterable[MaskFacts]:
    volumes = [path for path, whole in paths.items() if whole or is_volume(path)]
    images = [path for path, whole in paths.items() if not (whole or is_volume(path))]
    for path in (*_spread(images, MOST_FILES), *_spread(volumes, MOST_VOLUMES)):
        facts = _look_at(path, options, paths[path])
        if facts is not None:
            yield facts


def _spread(paths: Sequence[Path], most: int) -> list[Path]:
    if len(paths) <= most:
        return list(paths)
    return [paths[index * len(paths) // most] for index in range(most)]


def _look_at(path: Path, options: DataOptions, whole: str | None) -> MaskFacts | None:
    """What a mask holds; None where it can't be read: the data set will skip it and say why."""
    orientation = AS_STORED if whole or is_volume(path) else None
    try:
        picture = read_picture(
            path,
            orientation=orientation,
            indices=True,
            max_pixels=options.limit,
            axes=options.axes if whole else None,
        )
        return _facts_of(path.name, picture)
    except DataError:
        return None


def _facts_of(name: str, picture: Picture) -> MaskFacts:
    pixels, alpha = picture.pixels, None
    if picture.alpha and pixels.shape[-1] > 1:
        alpha = varies_in_alpha_only(pixels)
        pixels = pixels[..., -1:] if alpha else pixels[..., :-1]
    if pixels.shape[-1] == 3 and bool((pixels == pixels[..., :1]).all()):
        pixels = pixels[..., :1]
    if pixels.shape[-1] != 1 or picture.palette is not None:
        return MaskFacts(name, alpha=alpha)
    numbers = whole_numbers("it", pixels)
    narrow = numbers.dtype in (np.uint8, np.uint16)
    values = np.flatnonzero(np.bincount(numbers.ravel())) if narrow else np.unique(numbers)
    return MaskFacts(name, frozenset(values[:_MOST_VALUES].tolist()), alpha)


def _foreground(masks: Sequence[MaskFacts], classes: ClassTable) -> ClassTable:
    """Whether 255 is the foreground, for all masks alike."""
    with_one = [one for one in masks if 1 in one.values]
    with_255 = [one for one in masks if _VOID in one.values]
    if not with_255 or not with_one:
        values = (0, _VOID) if with_255 else classes.values
        return replace(classes, values=values, accept_255=False)
    both = [one for one in masks if {1, _VOID} <= one.values]
    where = (
        f"the mask '{both[0].name}' holds both 1 and 255"
        if both
        else f"some masks hold 1 ('{with_one[0].name}') and other masks 255 ('{with_255[0].name}')"
    )
    first, second = classes.names
    raise DataError(
        f"{where}, so 255 may be a void or the object: say ignore_index=255 if it is void, "
        f'classes="{first}=0,{second}=1+255" if both are the object',
        option=("ignore_index", "classes"),
    )


def _remarks(masks: Sequence[MaskFacts], classes: ClassTable) -> Iterable[str]:
    """What is odd about the values of all masks together."""
    held = frozenset().union(*(one.values for one in masks))
    count = len(classes)
    if classes.values != tuple(range(count)) or classes.more_values:
        return
    known = {value for value, _ in classes.value_codes()}
    shifted = ",".join(f"{name}={index + 1}" for index, name in enumerate(classes.names))
    if 0 not in held and count in held and held - known == {count}:
        raise DataError(
            f"the masks start at 1 (they hold 1 to {count} and never 0) and the classes' values "
            f'are 0 to {count - 1}: say classes="{shifted}"',
            option="classes",
        )
    if 0 not in held and held <= known:
        yield (
            f"No mask holds 0, the value of '{classes.names[0]}': if the masks start at 1, say "
            f'classes="{shifted}".'
        )
    if {0, count} <= held and held - known == {count}:
        number = sum(count in one.values for one in masks)
        yield (
            f"{number} of {len(masks)} masks hold {count}, which no class has: if 0 is void and "
            f'the classes start at 1, say classes="{shifted}" and ignore_index=0.'
        )


_VOLUMES = "volumes"


def settle_scale(
    samples: Sequence[Sample], preprocessing: Preprocessing, options: DataOptions | None = None
) -> tuple[Preprocessing, tuple[str, ...]]:
    """Decide what values are divided by, for all images of a data set alike.

    Volumes are not divided. Of images the commonest scale of up to 512 counts: 255 for 8 bits,
    65535 for 16, 1 for any other type; an image of another scale is skipped with its reason.

    Parameters
    ----------
    samples : sequence of Sample
    preprocessing : Preprocessing
        Left as it is where it names a largest value, or a normalisation of the values themselves.
    options : DataOptions, optional

    Returns
    -------
    preprocessing : Preprocessing
    remarks : tuple of str
    """
    if preprocessing.max_value is not None or preprocessing.keeps_values:
        return preprocessing, ()
    options = options or DataOptions()
    whole = {one.image: one.orientation for one in samples if one.image is not None}
    scales: Counter[float] = Counter()
    names: dict[float, str] = {}
    for path in _spread(list(whole), MOST_FILES):
        try:
            scale, name = _scale(path, options, whole[path])
        except DataError:
            continue
        scales[scale] += 1
        names.setdefault(scale, name)
    if not scales:
        return preprocessing, ()
    most = max(scales, key=lambda scale: (scales[scale], -abs(scale - 255)))
    remarks: tuple[str, ...] = ()
    if names == {1.0: _VOLUMES}:
        remarks = (
            "The volumes' values reach the network as they are stored, without any scale by their "
            "type: name a divisor with max_value=, or a normalisation with normalise=.",
        )
    if len(scales) > 1:
        others = ", ".join(names[scale] for scale in scales if scale != most)
        remarks = (
            f"Images are of several types: {names[most]} is divided by {most:g}, and those of "
            f"{others} are skipped; name one divisor for all with max_value=.",
        )
    return replace(preprocessing, max_value=most, by_type=True), remarks


def _scale(path: Path, options: DataOptions, whole: str | None) -> tuple[float, str]:
    """What values of an image's type are divided by, and the type's name."""
    if whole or is_volume(path):
        return 1.0, _VOLUMES
    dtype = value_type(path, max_pixels=options.limit)
    return full_scale(dtype), dtype.name
