"""What images and masks are called: a person's own pattern, and the common ones."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from unetcam.data.files import split_suffix
from unetcam.errors import DataError

STEM: Final = "{stem}"

_SEPARATOR: Final = r"[_\-. ]"
_IMAGE_WORDS: Final = (
    # what it is; Cityscapes; DeepGlobe; nnU-Net's first channel; DRIVE; sequences of a scan
    "images?|imgs?|im|photo|picture|raw|rgb|input|original|orig|scan|frame"
    "|leftimg8bit|sat|0000|training|train|test|val"
    "|flair|t1|t1ce|t1c|t1n|t2|t2w|t2f|ct|mr|mri|pet|adc|dwi"
)
_MASK_WORDS: Final = (
    # what it is; Cityscapes; ISIC; GlaS; CamVid; DRIVE and CHASE
    "masks?|labels?|lbl|seg|segm|segmentations?|gt|ground_?truth|truth|target|annotations?|annot"
    "|gtfine|gtcoarse|labelids|labeltrainids|trainids|anno|l|manual[12]?|[12](?:st|nd)ho|training"
    "|train|test|val"
)
_ENDS: Final = {
    words: re.compile(rf"^(?P<core>.+?){_SEPARATOR}(?:{words})$", re.IGNORECASE)
    for words in (_IMAGE_WORDS, _MASK_WORDS)
}
_BEGINNINGS: Final = {
    words: re.compile(
        rf"^(?:{words}){_SEPARATOR}?(?P<core>(?<={_SEPARATOR}).+|\d.*)$", re.IGNORECASE
    )
    for words in (_IMAGE_WORDS, _MASK_WORDS)
}


def image_cores(name: str) -> list[str]:
    """What an image is called without the words that only say that it is one, the name first.

    Examples
    --------
    >>> image_cores("img_1_leftImg8bit"), image_cores("image12")
    (['img_1_leftimg8bit', '1_leftimg8bit', 'img_1', '1'], ['image12', '12'])
    """
    return _cores(name, _IMAGE_WORDS)


def mask_cores(name: str) -> list[str]:
    """What a mask is called without the words that only say that it is one, the name first.

    Examples
    --------
    >>> mask_cores("img_1_gtFine_labelIds")[-1], mask_cores("mask_0001")[-1], mask_cores("x.jpg")
    ('img_1', '0001', ['x.jpg', 'x'])
    """
    cores = _cores(name, _MASK_WORDS)
    inner, suffix = split_suffix(name)
    if suffix in _INNER_SUFFIXES:
        cores += [core for core in _cores(inner, _MASK_WORDS) if core not in cores]
    return cores


_INNER_SUFFIXES: Final = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".nii", ".dcm")


def _cores(name: str, words: str) -> list[str]:
    cores = [name.casefold()]
    for core in cores:
        for pattern in (_BEGINNINGS[words], _ENDS[words]):
            match = pattern.match(core)
            if match is not None and match["core"] not in cores:
                cores.append(match["core"])
    return cores


@dataclass(frozen=True)
class NamePattern:
    """How masks are called, by a person's own word.

    Parameters
    ----------
    image, mask : str
        Names without their suffixes, with ``{stem}`` for what both share.

    Examples
    --------
    >>> pattern = NamePattern.parse("{stem}_leftImg8bit:{stem}_gtFine_labelIds")
    >>> list(pattern.mask_names("a_leftImg8bit")), list(pattern.mask_names("b"))
    (['a_gtFine_labelIds'], [])
    """

    image: str
    mask: str

    @classmethod
    def parse(cls, text: str) -> NamePattern:
        """Read ``MASK`` or ``IMAGE:MASK``.

        Raises
        ------
        DataError
            Unless each has ``{stem}`` once.
        """
        image, separator, mask = text.partition(":")
        if not separator:
            image, mask = STEM, text
        for one in (image, mask):
            if one.count(STEM) != 1 or "/" in one:
                raise DataError(
                    f"pair='{text}' is no pattern of names; write the mask's name with {{stem}} "
                    "once, as in {stem}_seg, or image and mask, as in {stem}_rgb:{stem}_seg",
                    option="pair",
                )
        return cls(image, mask)

    @classmethod
    def of(cls, mask_suffix: str | None, pair: str | None) -> NamePattern | None:
        """The pattern that a person gave in one of its two forms; None without one.

        Raises
        ------
        DataError
            If both were given.
        """
        if mask_suffix is not None and pair is not None:
            raise DataError(
                "mask_suffix= and pair= both say how masks are called; give one of them",
                option=("mask_suffix", "pair"),
            )
        if mask_suffix is not None:
            stem, suffix = split_suffix(mask_suffix)
            return cls(STEM, STEM + (stem if suffix in _INNER_SUFFIXES else mask_suffix))
        return None if pair is None else cls.parse(pair)

    def mask_names(self, image: str) -> Iterator[str]:
        """What the mask of an image may be called, the likeliest first."""
        before, after = self.image.split(STEM)
        fits = image.startswith(before) and image.endswith(after)
        if fits and len(image) > len(before) + len(after):
            stem = image[len(before) : len(image) - len(after)]
            yield self.mask.replace(STEM, stem)
        if self.image == STEM:  # the stem may be what is left without the image's own words
            for core in image_cores(image)[1:]:
                start = image.casefold().find(core)
                yield self.mask.replace(STEM, image[start : start + len(core)])
