"""The demo's images: axial slices of the MNI152 T1 template that the nilearn wheel carries.

The template is **one** volume, averaged over 152 healthy young adults. Training and held-out
slices come from that same volume, only from places kept apart, so every figure of the demo shows
how the toolkit works and says nothing about how a network would do on patients.

Each class is read from nilearn's probability maps: outside the skull-stripped brain is
*background*; inside, a voxel takes the likeliest of *grey matter*, *white matter* and the rest,
*other brain* (mostly cerebrospinal fluid).
"""

from __future__ import annotations

import csv
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from PIL import Image, ImageColor

from unetcam.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

CLASSES: Final = ("background", "other brain", "grey matter", "white matter")
"""Names of the classes; the position is the value in a mask."""

COLOURS: Final = ("#7f7f7f", "#0072b2", "#e69f00", "#cc79a7")
"""Display colour of each class, told apart by colour-blind readers too (Okabe and Ito, 2008)."""

TRAINING_SLICES: Final = (range(14, 70), range(114, 146))
"""Axial indices of the 1 mm template that the network was trained on."""

HELD_OUT_SLICES: Final = range(80, 104)
"""Axial indices kept out of training, at least 10 mm from any slice in it."""

_ORIGIN_MM: Final = 72  # the axial index at z = 0 mm of MNI space
_COLUMNS: Final = slice(18, 178)  # left to right, centred on the midline
_ROWS: Final = slice(21, 213)  # posterior to anterior, centred on the brain


class Statistics(NamedTuple):
    """Mean and standard deviation per channel of images scaled to [0, 1] by their dtype."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


DEMO_STATISTICS: Final = Statistics(mean=(0.254,), std=(0.336,))
"""What the demo's network expects its one-channel input to be normalised with."""


class Slices(NamedTuple):
    """A stack of axial slices, anterior side up and the subject's left on the left.

    ``indices`` (N,) are the axial indices in the template, ``images`` (N, 192, 160) uint8 its
    T1 intensities and ``masks`` (N, 192, 160) uint8 the class of each pixel of 1 mm x 1 mm.
    """

    indices: NDArray[np.int64]
    images: NDArray[np.uint8]
    masks: NDArray[np.uint8]


def read_slices(*ranges: range) -> Slices:
    """Cut axial slices out of the template.

    Parameters
    ----------
    *ranges
        Axial indices in the 1 mm template; :data:`HELD_OUT_SLICES` when none is given.

    Returns
    -------
    Slices
        Images and masks in the order asked for; the same on every call.

    Raises
    ------
    DataError
        When nilearn, which carries the template, is not installed.

    Examples
    --------
    >>> indices, images, masks = read_slices(range(90, 92))
    >>> images.shape, images.dtype, masks.max()
    ((2, 192, 160), dtype('uint8'), np.uint8(3))
    """
    indices = np.concatenate([np.asarray(r, dtype=np.int64) for r in ranges or (HELD_OUT_SLICES,)])
    t1, grey, white = (_axial(_template(name), indices) for name in ("t1", "gm", "wm"))
    likeliest = 1 + np.argmax(np.stack([1 - grey - white, grey, white]), axis=0)
    masks = np.where(t1 > 0, likeliest, 0).astype(np.uint8)
    # What is stored are bytes, and their maximum is 255: this gives them back.
    return Slices(indices, np.rint(t1 * 255).astype(np.uint8), masks)


def write_demo_data(folder: Path) -> None:
    """Write the held-out slices as a folder that ``unetcam report`` reads.

    ``images/`` takes 8-bit grey PNG files, ``masks/`` palette PNG files of the same names whose
    index is the class, and ``classes.csv`` the classes' names, values and colours. A file's
    name tells the slice's height in MNI space. Existing files of these names are overwritten.

    Parameters
    ----------
    folder
        Where to write; made when missing.

    Raises
    ------
    DataError
        When nilearn is not installed or the folder can't be written.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> write_demo_data(folder)
    >>> sorted(path.name for path in folder.iterdir())
    ['classes.csv', 'images', 'masks']
    >>> sorted(path.name for path in (folder / "masks").iterdir())[0]
    'mni152_z08mm.png'
    """
    slices = read_slices(HELD_OUT_SLICES)
    palette = [level for colour in COLOURS for level in ImageColor.getrgb(colour)]
    try:
        for name in ("images", "masks"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        for index, image, mask in zip(*slices, strict=True):
            name = f"mni152_z{index - _ORIGIN_MM:02d}mm.png"
            Image.fromarray(image).save(folder / "images" / name)
            indexed = Image.fromarray(mask)
            indexed.putpalette(palette)
            indexed.save(folder / "masks" / name)
        with (folder / "classes.csv").open("w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(["name", "value", "colour"])
            rows.writerows(zip(CLASSES, range(len(CLASSES)), COLOURS, strict=True))
    except OSError as error:
        raise DataError(
            f"The demo's slices can't be written to {folder} ({error.strerror or error}); "
            "choose a folder that you may write to."
        ) from error


def _axial(volume: NDArray[np.float32], indices: NDArray[np.int64]) -> NDArray[np.float32]:
    """Cut (N, rows, columns) float32 slices out of voxels stored x, y, z."""
    voxels = volume[_COLUMNS, _ROWS, indices]
    return np.ascontiguousarray(voxels.transpose(2, 1, 0)[:, ::-1])


def _template(name: str) -> NDArray[np.float32]:
    """One of the template's volumes, scaled to [0, 1] by its maximum as nilearn does it.

    nilearn itself is not imported: that takes as long as everything else that the demo imports.
    """
    package = find_spec("nilearn")
    if package is None or not package.submodule_search_locations:
        raise DataError(
            "The demo's slices come with nilearn, which is not installed; "
            "run: pip install unetcam[demo]."
        )
    file = f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz"
    path = Path(package.submodule_search_locations[0], "datasets", "data", file)
    if not path.exists():
        raise DataError(
            f"This version of nilearn carries no '{file}', of which the demo's slices are cut; "
            "run: pip install unetcam[demo]."
        )
    import nibabel

    volume: Any = nibabel.load(path)
    voxels: NDArray[np.float32] = np.asanyarray(volume.dataobj).astype(np.float32)
    voxels /= voxels.max()
    return voxels
