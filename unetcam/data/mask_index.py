"""The masks of a folder, by the name of the image that they belong to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from unetcam.data.class_table import ClassTable
from unetcam.data.files import key_of, readable, shown
from unetcam.data.formats import walk
from unetcam.data.name_patterns import NamePattern, image_cores, mask_cores
from unetcam.data.samples import Skipped
from unetcam.errors import nearest

MASK_ENDINGS: Final = ("_mask", "_masks", "_label", "_labels", "_seg", "_gt")
_CLASS_SEPARATORS: Final = ("_", "-", "/")
_PAIRING: Final = ("mask_suffix", "pair", "manifest")


@dataclass(frozen=True)
class FoundMask:
    """A mask, and the class of each of its files where there is one per class.

    Attributes
    ----------
    mask : Path or tuple of Path
    classes : tuple of int
    guessed : bool
        Whether it was told by common words, so that it has to be this image's alone.
    """

    mask: Path | tuple[Path, ...]
    classes: tuple[int, ...] = ()
    guessed: bool = False

    @property
    def files(self) -> tuple[Path, ...]:
        """The mask's files."""
        return self.mask if isinstance(self.mask, tuple) else (self.mask,)


@dataclass(frozen=True)
class Unpaired:
    """Why an image has no mask: the end of a sentence that begins with it, and its options."""

    reason: str
    options: tuple[str, ...] = ()


class MaskIndex:
    """The masks below a folder.

    Parameters
    ----------
    root : Path
        The folder.
    classes : ClassTable or None
        The classes, for the layouts of one file per class.
    without : collection of Path
        Resolved folders that are left out (the images, where they lie among the masks).
    shared : bool
        Whether the folder holds the images too: then a file is a mask if its name is that of
        another file with a mask's or a class's word.
    pattern : NamePattern, optional
        How masks are called, by a person's word.

    Attributes
    ----------
    mask_keys : set of str
        Of a shared folder the keys of the masks; empty otherwise.
    orphans : list of Skipped
        Of a shared folder the files that are called like a mask of an image that isn't there.
    """

    def __init__(
        self,
        root: Path,
        classes: ClassTable | None,
        without: Collection[Path] = (),
        *,
        shared: bool = False,
        pattern: NamePattern | None = None,
    ) -> None:
        self._root = root
        self._pattern = pattern
        self._spellings = [] if classes is None else [_spellings(name) for name in classes.names]
        self._by_key: dict[str, list[Path]] = defaultdict(list)
        self._by_name: dict[str, list[Path]] = defaultdict(list)
        self._by_core: dict[str, list[Path]] = defaultdict(list)
        folders = {spelling for spellings in self._spellings for spelling in spellings}
        files, _ = walk(root, without)
        keys = {path: key_of(path.relative_to(root)) for path in files}
        self.mask_keys: set[str] = self._shared_masks(set(keys.values())) if shared else set()
        self.orphans: list[Skipped] = self._orphans(keys) if shared else []
        for path, key in keys.items():
            if shared and key not in self.mask_keys:
                continue
            self._by_key[key].append(path)
            if key.partition("/")[0] not in folders or "/" not in key:
                name = bare_name(key)
                self._by_name[name].append(path)
                for core in mask_cores(name):
                    self._by_core[core].append(path)

    def _shared_masks(self, keys: set[str]) -> set[str]:
        """The keys that are masks, where images and masks share a folder."""
        names = {bare_name(key) for key in keys}
        if self._pattern is not None:
            wanted = {mask for name in names for mask in self._pattern.mask_names(name)}
            return {key for key in keys if bare_name(key) in wanted}
        own = {key for key in keys if any(key + end in keys for end in MASK_ENDINGS)}
        cores: dict[str, set[str]] = defaultdict(set)
        for name in names:
            for core in image_cores(name):
                cores[core].add(name)
        masks = set()
        for key in keys - own:
            name = bare_name(key)
            bases = [name[: -len(end)] for end in self._endings() if name.endswith(end)]
            in_folder = any(
                key.startswith(f"{spelling}/")
                and bare_name(key.partition("/")[2]) in names
                and sum(bare_name(other) == name for other in keys) > 1
                for spellings in self._spellings
                for spelling in spellings
            )
            other = any(cores[core] - {name} for core in mask_cores(name)[1:])
            if in_folder or other or any(base in names for base in bases):
                masks.add(key)
        return masks

    def _endings(self) -> list[str]:
        spellings = [spelling for names in self._spellings for spelling in names]
        return [*MASK_ENDINGS, *(s + one for one in spellings for s in _CLASS_SEPARATORS[:2])]

    def _orphans(self, keys: Mapping[Path, str]) -> list[Skipped]:
        """What is called like a mask without a doubt, of an image that isn't there."""
        return [
            Skipped(
                readable(key),
                readable(path),
                f"{shown(path)} is called like the mask of an image that isn't there; add the "
                "image, or rename it if it is one",
            )
            for path, key in keys.items()
            if key.endswith(MASK_ENDINGS)
            and self._pattern is None
            and key not in self.mask_keys
            and not any(key + end in self.mask_keys for end in MASK_ENDINGS)
        ]

    def find(self, key: str, images: Collection[str], *, only: bool = True) -> FoundMask | Unpaired:
        """The mask of an image.

        Parameters
        ----------
        key : str
            The image's key.
        images : collection of str
            The keys of all images: a file that is called exactly like another image is that
            image's mask, and no class file of this one.
        only : bool
            Whether no other image has this name in another subfolder: then a mask of that name
            in any subfolder may be this image's.

        Returns
        -------
        FoundMask or Unpaired
        """
        if self._pattern is not None:
            return self._by_pattern(key, self._pattern, only=only)
        whole = self._by_key.get(key, [])
        per_class = self._class_files(key, images)
        if whole and per_class:
            return Unpaired(
                f"has a mask of its own, {shown(whole[0])}, and files per class, "
                f"{shown(per_class[0][1])}; remove one of the two"
            )
        if per_class:
            return self._one_per_class(per_class)
        whole = whole or self._first(self._by_key, (key + end for end in MASK_ENDINGS))
        bare, guessed = bare_name(key), False
        if not whole and only:
            whole = self._first(self._by_name, (bare + end for end in ("", *MASK_ENDINGS)))
        if not whole and only:
            whole, guessed = self._first(self._by_core, image_cores(bare)), True
        return self._single(key, whole, guessed=guessed)

    def _by_pattern(self, key: str, pattern: NamePattern, *, only: bool) -> FoundMask | Unpaired:
        folder, slash, bare = key.rpartition("/")
        names = list(pattern.mask_names(bare))
        whole = self._first(self._by_key, (f"{folder}{slash}{name}" for name in names))
        if not whole and only:
            whole = self._first(self._by_name, names)
        if not names:
            return Unpaired(
                f"is not called like the image of the pattern '{pattern.image}:{pattern.mask}'; "
                "change pair=",
                ("pair",),
            )
        return self._single(f"{folder}{slash}{names[0]}", whole, guessed=True)

    def _single(self, key: str, whole: list[Path], *, guessed: bool) -> FoundMask | Unpaired:
        if len(whole) > 1:
            return Unpaired(
                f"has {len(whole)} masks ({_names(whole)}); leave one of them, or say how masks "
                "are called with pair=",
                ("pair",),
            )
        if whole:
            return FoundMask(whole[0], guessed=guessed)
        held = [path.name for paths in self._by_key.values() for path in paths]
        wanted = f"has no mask called {shown(Path(bare_name(key)))} in {shown(self._root)}"
        if not held:
            return Unpaired(f"{wanted}, which holds no masks at all; check the folder")
        near = nearest(bare_name(key), held[:2000], cutoff=0.0)
        rest = f" and {len(held) - 1} more" if len(held) > 1 else ""
        return Unpaired(
            f"{wanted}, which holds '{readable((near or held)[0])}'{rest}; add or rename it, say "
            "how masks are called with mask_suffix= or pair=, or name both in a table with "
            "manifest=",
            _PAIRING,
        )

    @staticmethod
    def _first(index: Mapping[str, list[Path]], keys: Iterable[str]) -> list[Path]:
        """All files of the first key that has any."""
        return next((index[key] for key in keys if key in index), [])

    def _class_files(self, key: str, images: Collection[str]) -> list[tuple[int, Path]]:
        files: list[tuple[int, Path]] = []
        for number, spellings in enumerate(self._spellings):
            for spelling in spellings:
                for file_key in (
                    f"{spelling}/{key}",
                    *(f"{key}{separator}{spelling}" for separator in _CLASS_SEPARATORS),
                ):
                    if file_key not in images:
                        files += [(number, path) for path in self._by_key.get(file_key, [])]
        return files

    def _one_per_class(self, files: list[tuple[int, Path]]) -> FoundMask | Unpaired:
        numbers = [number for number, _ in files]
        doubled = [path for number, path in files if numbers.count(number) > 1]
        if doubled:
            return Unpaired(
                f"has {len(doubled)} masks for one class ({_names(doubled)}); leave one of them"
            )
        return FoundMask(tuple(path for _, path in files), tuple(numbers))


def bare_name(key: str) -> str:
    """A key without its folders.

    Examples
    --------
    >>> bare_name("ward/p1")
    'p1'
    """
    return key.rpartition("/")[2]


def _spellings(name: str) -> list[str]:
    """How a class's name may be written in a file name."""
    return list(
        dict.fromkeys([name, name.lower(), name.replace(" ", "_"), name.lower().replace(" ", "_")])
    )


def _names(paths: list[Path]) -> str:
    more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
    return ", ".join(shown(path) for path in paths[:3]) + more
