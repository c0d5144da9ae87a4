"""Find the images of a data set and the masks that belong to them."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from unetcam.data.class_table import ClassTable
from unetcam.data.files import key_of, readable, require_file, shown
from unetcam.data.formats import format_names, format_of, walk
from unetcam.data.mask_index import MaskIndex, bare_name
from unetcam.data.samples import IGNORE, Sample, Skipped
from unetcam.data.volume_samples import expand_volumes
from unetcam.errors import DataError

Found = tuple[list[Sample], list[Skipped]]


def find_samples(
    images: Path | None = None,
    masks: Path | None = None,
    *,
    manifest: Path | None = None,
    classes: ClassTable | None = None,
) -> Found:
    """Find images and the masks that belong to them; nothing is decoded yet.

    Parameters
    ----------
    images : Path, optional
        An image file, or a folder that is searched with its subfolders. Hidden files are passed
        over.
    masks : Path, optional
        A mask file (for a single image) or a folder. An image ``a/b.png`` pairs with the mask
        file of any format at ``a/b``, or ``a/b`` with one of the endings ``_mask``, ``_masks``,
        ``_label``, ``_labels``, ``_seg`` and ``_gt``; failing that, with the only mask of that
        name in any subfolder. With `classes`, one file per class is found at ``<class>/a/b``,
        ``a/b_<class>``, ``a/b-<class>`` and ``a/b/<class>``.
    manifest : Path, optional
        Instead of the two: a CSV or JSON file with the columns ``image`` and ``mask`` (and an
        ``id``, if wanted), its paths relative to the manifest. In JSON, ``mask`` may map class
        names to files.
    classes : ClassTable, optional
        The classes, for the layouts of one file per class.

    Returns
    -------
    samples : list of Sample
        Sorted by id. A NIfTI or NRRD volume gives one sample per axial slice.
    skipped : list of Skipped
        Images without a mask or with several candidates, images that share a name, and files of
        a kind that isn't read; each with its reason.

    Raises
    ------
    DataError
        If a folder or the manifest is missing or can't be understood, or if both or neither of
        `images` and `manifest` are given.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("images/a.PNG", "images/b.jpg", "masks/a.png"):
    ...         path = Path(folder) / name
    ...         path.parent.mkdir(exist_ok=True)
    ...         path.touch()
    ...     samples, skipped = find_samples(Path(folder) / "images", Path(folder) / "masks")
    >>> [sample.id for sample in samples], [entry.id for entry in skipped]
    (['a'], ['b'])
    """
    if manifest is not None:
        if images is not None or masks is not None:
            raise DataError("a manifest names the images and masks itself; give it alone")
        samples, skipped = read_manifest(Path(manifest), classes)
    elif images is not None:
        samples, skipped = _find(Path(images), None if masks is None else Path(masks), classes)
    else:
        raise DataError("no images were given; name a folder of images, or a manifest")
    samples, damaged = expand_volumes(_with_background(samples))
    return (
        sorted(samples, key=lambda sample: sample.id),
        sorted([*skipped, *damaged], key=lambda entry: entry.id),
    )


def _with_background(samples: list[Sample]) -> list[Sample]:
    """Pixels that no class file claims are background, unless class 0 has files of its own."""
    drawn = any(0 in sample.mask_classes for sample in samples)
    if not drawn:
        return samples
    return [
        replace(sample, unlabelled=IGNORE) if sample.mask_classes else sample for sample in samples
    ]


def _find(images: Path, masks: Path | None, classes: ClassTable | None) -> Found:
    for path in (images, masks):
        if path is not None and not path.exists():
            raise DataError(f"there is no file or folder {shown(path)}; check the path")
    if not images.is_dir():
        return _single(images, masks, classes)
    apart = masks is not None and masks.is_dir() and masks.resolve() != images.resolve()
    without = {masks.resolve()} if masks is not None and apart else set()
    files, skipped = walk(images, without)
    by_key = _by_key(files, images)
    if masks is None:
        return [Sample(key, path) for key, path in _unique(by_key, images)], skipped
    if not masks.is_dir():
        raise DataError(
            f"{shown(masks)} is a file and {shown(images)} a folder; give a folder of masks"
        )
    index = MaskIndex(masks, classes, {images.resolve()} if apart else (), shared=not apart)
    if not apart:
        by_key = {key: paths for key, paths in by_key.items() if not index.is_mask_name(key)}
    samples, unpaired = _paired(by_key, index)
    return samples, [*skipped, *unpaired]


def _single(image: Path, masks: Path | None, classes: ClassTable | None) -> Found:
    if format_of(image) is None:
        raise DataError(f"{shown(image)} is of a kind that isn't read; give {format_names()}")
    key = key_of(Path(image.name))
    if masks is None or not masks.is_dir():
        return [Sample(readable(key), image, masks)], []
    return _paired({key: [image]}, MaskIndex(masks, classes))


def _by_key(files: list[Path], root: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = defaultdict(list)
    for path in files:
        found[key_of(path.relative_to(root))].append(path)
    return dict(found)


def _unique(by_key: dict[str, list[Path]], root: Path) -> list[tuple[str, Path]]:
    """An id per image: the key, or the whole name where two images share a key."""
    return [
        (readable(key) if len(paths) == 1 else readable(path.relative_to(root).as_posix()), path)
        for key, paths in by_key.items()
        for path in paths
    ]


def _paired(by_key: dict[str, list[Path]], index: MaskIndex) -> Found:
    samples: list[Sample] = []
    skipped: list[Skipped] = []
    namesakes = Counter(map(bare_name, by_key))
    for key, paths in by_key.items():
        name = readable(key)
        if len(paths) > 1:
            names = ", ".join(shown(path) for path in paths)
            reason = f"{names} share the name that masks pair by; rename or remove all but one"
            skipped += [
                Skipped(readable(f"{key}{path.suffix}"), readable(path), reason) for path in paths
            ]
            continue
        found = index.find(key, by_key.keys(), only=namesakes[bare_name(key)] == 1)
        if isinstance(found, str):
            reason = f"the image {shown(paths[0])} {found}"
            skipped.append(Skipped(name, readable(paths[0]), reason))
        else:
            samples.append(Sample(name, paths[0], found.mask, mask_classes=found.classes))
    return samples, skipped


_Row = Mapping[str, Any]


def read_manifest(path: Path, classes: ClassTable | None) -> tuple[list[Sample], list[Skipped]]:
    """Read a manifest; ``find_samples`` says what it holds.

    An image's id is its path as the manifest writes it, without the suffix and without leading
    dots, unless the manifest has a column ``id``.

    Raises
    ------
    DataError
        If the manifest can't be read, or has no column ``image``.
    """
    require_file(path)
    rows = _rows(path)
    if not all("image" in row for row in rows):
        raise DataError(
            f"the manifest {shown(path)} has no column 'image'; give the columns image and mask"
        )
    with_masks = any("mask" in row for row in rows)
    samples: list[Sample] = []
    skipped: list[Skipped] = []
    ids = _ids(rows)
    often = Counter(ids)
    for number, (row, name) in enumerate(zip(rows, ids, strict=True), start=1):
        found: Sample | str
        if often[name] > 1 and name:
            found = (
                f"'{name}' stands {often[name]} times in the manifest {shown(path)}; leave one "
                "entry, or give each an id of its own"
            )
        else:
            found = _sample(row, name, path.parent, classes, with_masks)
        if isinstance(found, Sample):
            samples.append(found)
        else:
            identity = name if name and often[name] == 1 else f"{name} (entry {number})".strip()
            skipped.append(Skipped(identity, _text(row.get("image")), found))
    return samples, skipped


def _rows(path: Path) -> list[_Row]:
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".json"):
        raise DataError(f"the manifest {shown(path)} is neither .csv nor .json; save it as one")
    try:
        content = path.read_text(encoding="utf-8-sig")
        rows = _csv_rows(content) if suffix == ".csv" else json.loads(content)
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(
            f"the manifest {shown(path)} can't be read; save it as {suffix[1:].upper()} in UTF-8"
        ) from error
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
        raise DataError(
            f"the manifest {shown(path)} is no list of entries; write "
            '[{"image": "a.png", "mask": "b.png"}, ...]'
        )
    if not rows:
        raise DataError(f"the manifest {shown(path)} lists no image; add one line per image")
    return [{str(key).strip().lower(): value for key, value in row.items()} for row in rows]


def _csv_rows(content: str) -> list[dict[str, str]]:
    header = content.partition("\n")[0]
    delimiter = max(",;\t", key=header.count)
    reader = csv.DictReader(io.StringIO(content, newline=""), delimiter=delimiter)
    return [{key: value or "" for key, value in row.items() if key} for row in reader]


def _text(value: Any) -> str:
    return readable(value.strip()) if isinstance(value, str) else ""


def _ids(rows: list[_Row]) -> list[str]:
    given = [_text(row.get("id")) for row in rows]
    paths = [_text(row.get("image")) for row in rows]
    keys = [_without_dots(key_of(Path(path))) if path else "" for path in paths]
    often = Counter(keys)
    return [
        name or (key if often[key] == 1 else _without_dots(path))
        for name, key, path in zip(given, keys, paths, strict=True)
    ]


def _without_dots(path: str) -> str:
    """A path's parts without a root and without steps upwards.

    Examples
    --------
    >>> _without_dots("../images/./a"), _without_dots("/data/a")
    ('images/a', 'data/a')
    """
    return "/".join(part for part in Path(path).parts if part not in (Path(path).anchor, "..", "."))


def _sample(
    row: _Row, name: str, folder: Path, classes: ClassTable | None, with_masks: bool
) -> Sample | str:
    """An entry's sample, or what is wrong with it."""
    image = _path(row.get("image"), folder)
    if image is None:
        return "an entry of the manifest has no image; give the path of a file"
    if not with_masks:
        return Sample(name, image)
    mask = row.get("mask")
    if isinstance(mask, Mapping):
        return _with_class_files(Sample(name, image), mask, folder, classes)
    path = _path(mask, folder)
    if path is None:
        return f"the entry of {shown(image)} has no mask; fill in its column 'mask'"
    return Sample(name, image, path)


def _with_class_files(
    sample: Sample, mask: _Row, folder: Path, classes: ClassTable | None
) -> Sample | str:
    if classes is None:
        return f"the entry '{sample.id}' has a mask per class; give a class table too"
    files: dict[int, Path] = {}
    for key, value in mask.items():
        path = _path(value, folder)
        if key not in classes.names or path is None:
            return (
                f"the entry '{sample.id}' has a mask for '{readable(str(key))}' that is "
                f"no path or no class; the classes are {', '.join(classes.names)}"
            )
        files[classes.index(key)] = path
    if not files:
        return f"the entry '{sample.id}' has no mask; name a file for one class at least"
    order = tuple(sorted(files))
    return replace(sample, mask=tuple(files[n] for n in order), mask_classes=order)


def _path(value: Any, folder: Path) -> Path | None:
    return folder / value.strip() if isinstance(value, str) and value.strip() else None
