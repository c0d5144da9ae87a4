"""Find the images of a data set and the masks that belong to them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from unetcam.data.class_table import ClassTable
from unetcam.data.files import key_of, readable, shown
from unetcam.data.formats import format_names, format_of, walk
from unetcam.data.manifest import read_manifest
from unetcam.data.mask_index import MaskIndex, Unpaired, bare_name
from unetcam.data.name_patterns import NamePattern
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
    mask_suffix: str | None = None,
    pair: str | None = None,
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
        name in any subfolder; failing that, with the only mask whose name is the same without
        the words that say what a file is (``x_0000`` and ``x``, ``x_leftImg8bit`` and
        ``x_gtFine_labelIds``, ``img_7`` and ``mask_7``, ``x`` and ``x.jpg.png``). With
        `classes`, one file per class is found at ``<class>/a/b``, ``a/b_<class>``,
        ``a/b-<class>`` and ``a/b/<class>``.
    manifest : Path, optional
        Instead of the two: a CSV or JSON file with the columns ``image`` and ``mask`` (and an
        ``id``, if wanted), its paths relative to the manifest. In JSON, ``mask`` may map class
        names to files.
    classes : ClassTable, optional
        The classes, for the layouts of one file per class.
    mask_suffix : str, optional
        What a mask's name has behind its image's, as in ``"_seg"``; nothing else is tried then.
    pair : str, optional
        How a mask is called, as in ``"{stem}_gtFine_labelIds"``; or image and mask, as in
        ``"{stem}_leftImg8bit:{stem}_gtFine_labelIds"``; nothing else is tried then.

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
    pattern = NamePattern.of(mask_suffix, pair)
    if manifest is not None:
        if images is not None or masks is not None:
            raise DataError("a manifest names the images and masks itself; give it alone")
        samples, skipped = read_manifest(Path(manifest), classes)
    elif images is not None:
        masks = None if masks is None else Path(masks)
        samples, skipped = _find(Path(images), masks, classes, pattern)
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


def _find(
    images: Path, masks: Path | None, classes: ClassTable | None, pattern: NamePattern | None
) -> Found:
    for path in (images, masks):
        if path is not None and not _exists(path):
            raise DataError(f"there is no file or folder {shown(path)}; check the path")
    if not images.is_dir():
        return _single(images, masks, classes, pattern)
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
    without = {images.resolve()} if apart else set()
    index = MaskIndex(masks, classes, without, shared=not apart, pattern=pattern)
    skipped += index.orphans
    others = index.mask_keys | {one.id for one in index.orphans}
    by_key = {k: paths for k, paths in by_key.items() if not {k, readable(k)} & others}
    samples, unpaired = _paired(by_key, index)
    return samples, [*skipped, *unpaired]


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # no file can be called so
        return False


def _single(
    image: Path, masks: Path | None, classes: ClassTable | None, pattern: NamePattern | None
) -> Found:
    if format_of(image) is None:
        raise DataError(f"{shown(image)} is of a kind that isn't read; give {format_names()}")
    key = key_of(Path(image.name))
    if masks is None or not masks.is_dir():
        return [Sample(readable(key), image, masks)], []
    return _paired({key: [image]}, MaskIndex(masks, classes, pattern=pattern))


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
    guessed: dict[Path, list[Sample]] = defaultdict(list)
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
        result = index.find(key, by_key.keys(), only=namesakes[bare_name(key)] == 1)
        if isinstance(result, Unpaired):
            reason = f"the image {shown(paths[0])} {result.reason}"
            skipped.append(Skipped(name, readable(paths[0]), reason, result.options))
            continue
        sample = Sample(name, paths[0], result.mask, mask_classes=result.classes)
        if result.guessed:
            guessed[result.files[0]].append(sample)
        else:
            samples.append(sample)
    return _one_each(samples, skipped, guessed)


def _one_each(
    samples: list[Sample], skipped: list[Skipped], guessed: Mapping[Path, list[Sample]]
) -> Found:
    """Take a mask that was told by common words only where it is one image's alone."""
    taken = {path for sample in samples for path in sample.mask_files}
    for mask, claimants in guessed.items():
        if len(claimants) == 1 and mask not in taken:
            samples.append(claimants[0])
            continue
        for sample in claimants:
            reason = (
                f"the image '{sample.id}' and {max(len(claimants) - 1, 1)} more would share the "
                f"mask {shown(mask)}; stack the channels of one image into one file, or say which "
                "belong together with manifest="
            )
            skipped.append(Skipped(sample.id, sample.file, reason, ("manifest",)))
    return samples, skipped
