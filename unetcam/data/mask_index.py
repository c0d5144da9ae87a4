"""The masks of a folder, by the name of the image that they belong to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from unetcam.data.class_table import ClassTable
from unetcam.data.files import key_of, shown
from unetcam.data.formats import walk

MASK_ENDINGS: Final = ("_mask", "_masks", "_label", "_labels", "_seg", "_gt")
_CLASS_SEPARATORS: Final = ("_", "-", "/")


@dataclass(frozen=True)
class FoundMask:
    """A mask, and the class of each of its files where there is one per class."""

    mask: Path | tuple[Path, ...]
    classes: tuple[int, ...] = ()


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
        Whether the folder holds the images too: then only files that are called like a mask
        are masks.
    """

    def __init__(
        self,
        root: Path,
        classes: ClassTable | None,
        without: Collection[Path] = (),
        *,
        shared: bool = False,
    ) -> None:
        self._root = root
        self._spellings = [] if classes is None else [_spellings(name) for name in classes.names]
        self._by_key: dict[str, list[Path]] = defaultdict(list)
        self._by_name: dict[str, list[Path]] = defaultdict(list)
        folders = {spelling for spellings in self._spellings for spelling in spellings}
        files, _ = walk(root, without)
        for path in files:
            key = key_of(path.relative_to(root))
            if shared and not self.is_mask_name(key):
                continue
            self._by_key[key].append(path)
            if key.partition("/")[0] not in folders or "/" not in key:
                self._by_name[bare_name(key)].append(path)

    def is_mask_name(self, key: str) -> bool:
        """Whether a file's key says that it is a mask, where images and masks share a folder."""
        return key.endswith((*MASK_ENDINGS, *self._class_endings())) or any(
            key.startswith(f"{spelling}/") for names in self._spellings for spelling in names
        )

    def _class_endings(self) -> list[str]:
        return [
            separator + spelling
            for names in self._spellings
            for spelling in names
            for separator in _CLASS_SEPARATORS
        ]

    def find(self, key: str, images: Collection[str], *, only: bool = True) -> FoundMask | str:
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
        FoundMask or str
            The mask; or what is wrong, as the end of a sentence that begins with the image.
        """
        whole = self._by_key.get(key, [])
        per_class = self._class_files(key, images)
        if whole and per_class:
            return (
                f"has a mask of its own, {shown(whole[0])}, and files per class, "
                f"{shown(per_class[0][1])}; remove one of the two"
            )
        if per_class:
            return self._one_per_class(per_class)
        whole = whole or self._first(self._by_key, (key + end for end in MASK_ENDINGS))
        if not whole and only:
            bare = bare_name(key)
            whole = self._first(self._by_name, (bare + end for end in ("", *MASK_ENDINGS)))
        if len(whole) > 1:
            return f"has {len(whole)} masks ({_names(whole)}); leave one of them"
        if not whole:
            return f"has no mask called {shown(Path(key))} in {shown(self._root)}; add or rename it"
        return FoundMask(whole[0])

    @staticmethod
    def _first(index: dict[str, list[Path]], keys: Iterable[str]) -> list[Path]:
        """All files of the first key that has any."""
        return next((index[key] for key in keys if key in index), [])

    def _class_files(self, key: str, images: Collection[str]) -> list[tuple[int, Path]]:
        found: list[tuple[int, Path]] = []
        for number, spellings in enumerate(self._spellings):
            for spelling in spellings:
                for file_key in (
                    f"{spelling}/{key}",
                    *(f"{key}{separator}{spelling}" for separator in _CLASS_SEPARATORS),
                ):
                    if file_key not in images:
                        found += [(number, path) for path in self._by_key.get(file_key, [])]
        return found

    def _one_per_class(self, found: list[tuple[int, Path]]) -> FoundMask | str:
        numbers = [number for number, _ in found]
        doubled = [path for number, path in found if numbers.count(number) > 1]
        if doubled:
            return f"has {len(doubled)} masks for one class ({_names(doubled)}); leave one of them"
        return FoundMask(tuple(path for _, path in found), tuple(numbers))


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
