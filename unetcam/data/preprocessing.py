"""Preprocessing: how the network takes an image, written down by a run and read back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, Literal

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from torch import Tensor

from unetcam.data.channels import to_channels
from unetcam.data.frames import Frame, Size, rounded_up
from unetcam.data.normalisation import PRESETS, Fitted, Step, fitted, parse_normalisation
from unetcam.data.pictures import Pixels
from unetcam.errors import DataError

Mode = Literal["pad", "resize"]
_SCHEMA: Final = 1
_IMPLIED: Final = {"dims": 2, "normalise": None, "by_type": False}


def full_scale(dtype: np.dtype[Any]) -> float:
    """What values of a type are divided by, unless a person says otherwise.

    Examples
    --------
    >>> [full_scale(np.dtype(name)) for name in ("uint8", "uint16", "int16", "float32")]
    [255.0, 65535.0, 1.0, 1.0]
    """
    return float(np.iinfo(dtype).max) if dtype in (np.uint8, np.uint16) else 1.0


@dataclass(frozen=True)
class Prepared:
    """An image or a volume as the network takes it.

    Attributes
    ----------
    image : Tensor, shape (C, h, w) or (C, d, h, w), float32
    mask : Tensor, shape (h, w) or (d, h, w), int64, or None
        Class indices; ``IGNORE`` (-1) in the padding.
    frame : Frame
        The way back to the image's own size.
    """

    image: Tensor
    mask: Tensor | None
    frame: Frame


@dataclass(frozen=True)
class Preprocessing:
    """Resize or pad, and normalise, as the network was trained.

    Parameters
    ----------
    channels : int
        Channels that the network takes; `to_channels` says how an image is brought to them.
    size : (int, int) or None
        Height and width to resize to; None leaves the image its own.
    mode : {"pad", "resize"}
        How height and width come to be multiples of `stride`. ``"pad"`` keeps the image's aspect
        ratio (with a `size`, the image is fitted into it) and pads on all sides, after
        normalising, with 0, which is what the network's own convolutions pad with.
        ``"resize"`` stretches the image to `size`, or to its own size, rounded up.
    stride : int
        The network's largest stride.
    mean, std : tuple of float
        One per channel, or one for all, as fractions of `max_value`:
        ``(image / max_value - mean) / std``.
    max_value : float or None
        What the image is divided by first. None: the type's maximum for unsigned integers of 8
        and 16 bits (255, 65535), and 1 for any other type.
    dims : {2, 3}
        2 for images and 3 for volumes, which are padded and never resized.
    normalise : str or None
        Steps by which values are normalised before anything else, as in ``"zscore"`` or
        ``"clip:-160:240,zscore"``, see
        :func:`~unetcam.data.normalisation.parse_normalisation`; they take the values as the file
        has them, and `max_value` has to be None. Or the name of the weights that the network
        began with, ``"imagenet"``, ``"inception"`` or ``"clip"``, which stands for their `mean`
        and `std`.
    by_type : bool
        Whether `max_value` was decided by the type of a data set's images; an image of a type
        with another scale is refused.

    Raises
    ------
    DataError
        If an option makes no sense.

    Examples
    --------
    >>> prepare = Preprocessing(channels=1, stride=16, mean=(0.5,), std=(0.25,))
    >>> prepared = prepare(np.full((20, 30, 1), 255, np.uint8))
    >>> prepared.image.shape, prepared.image.max()
    (torch.Size([1, 32, 32]), tensor(2.))
    >>> prepared.frame.restore(prepared.image).shape
    torch.Size([1, 20, 30])
    """

    channels: int = 3
    size: Size | None = None
    mode: Mode = "pad"
    stride: int = 32
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    max_value: float | None = None
    dims: int = 2
    normalise: str | None = None
    by_type: bool = False

    def __post_init__(self) -> None:
        if self.mode not in ("pad", "resize"):
            raise DataError(f"the mode '{self.mode}' is unknown; choose pad or resize")
        if self.dims not in (2, 3):
            raise DataError(f"there are {self.dims} dimensions; give 2 for images or 3 for volumes")
        if self.dims == 3 and (self.mode != "pad" or self.size is not None):
            raise DataError("volumes keep their size; give none, and the mode pad")
        for name in ("channels", "stride"):
            object.__setattr__(self, name, _whole(getattr(self, name), name))
        if self.size is not None:
            if len(self.size) != 2:
                raise DataError(f"the size {self.size} is no (height, width); give two numbers")
            height, width = (_whole(side, "size") for side in self.size)
            object.__setattr__(self, "size", (height, width))
        self._settle_normalisation()
        for name in ("mean", "std"):
            object.__setattr__(self, name, self._per_channel(name))
        if not all(value > 0 for value in self.std):
            raise DataError(f"a standard deviation is not positive ({self.std}); give std > 0")
        if self.max_value is not None:
            value = float(self.max_value)
            if not (math.isfinite(value) and value > 0):
                raise DataError(f"the largest value is {value}; give a positive number")
            object.__setattr__(self, "max_value", value)

    def _settle_normalisation(self) -> None:
        if self.normalise is None:
            return
        preset = PRESETS.get(self.normalise)
        if preset is None:
            parse_normalisation(self.normalise)
            if self.max_value is not None:
                raise DataError(
                    f"normalise='{self.normalise}' takes the values as they are, and max_value= "
                    "was given; leave out one of the two",
                    option=("normalise", "max_value"),
                )
            return
        plain = all(value == 0 for value in self.mean) and all(value == 1 for value in self.std)
        if not plain and (tuple(self.mean), tuple(self.std)) != preset:
            raise DataError(
                f"normalise='{self.normalise}' stands for its own mean and standard deviation; "
                "leave out mean= and std=",
                option=("normalise", "mean", "std"),
            )
        if self.channels != len(preset[0]):
            raise DataError(
                f"normalise='{self.normalise}' is for 3 channels and the network takes "
                f"{self.channels}; give its own mean= and std=",
                option=("normalise", "mean", "std"),
            )
        for name, values in zip(("mean", "std"), preset, strict=True):
            object.__setattr__(self, name, values)

    @property
    def keeps_values(self) -> bool:
        """Whether values are normalised as the file has them, whatever their type."""
        return self.normalise is not None and self.normalise not in PRESETS

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps of the normalisation; none for a preset."""
        return parse_normalisation(self.normalise) if self.keeps_values and self.normalise else ()

    def _per_channel(self, name: str) -> tuple[float, ...]:
        values = tuple(float(value) for value in getattr(self, name))
        if len(values) not in (1, self.channels) or not all(map(math.isfinite, values)):
            raise DataError(
                f"{name}={values} and the network takes {self.channels} channels; give one "
                "finite number per channel, or one for all"
            )
        return values * self.channels if len(values) == 1 else values

    def frame(self, original: Size) -> Frame:
        """How an image or a volume of a size will be resized and padded.

        Parameters
        ----------
        original : tuple of int
            Height and width of the image; depth, height and width of a volume.

        Returns
        -------
        Frame

        Examples
        --------
        >>> Preprocessing(stride=16).frame((20, 30))
        Frame(original=(20, 30), resized=(20, 30), offset=(6, 1), padded=(32, 32))
        """
        size = self.size or original
        padded = tuple(rounded_up(side, self.stride) for side in size)
        if self.mode == "resize":
            return Frame(original, padded, (0, 0), padded)
        resized = original
        if self.size is not None:
            scale = min(size[0] / original[0], size[1] / original[1])
            resized = (max(1, round(original[0] * scale)), max(1, round(original[1] * scale)))
        offset = tuple((a - b) // 2 for a, b in zip(padded, resized, strict=True))
        return Frame(original, resized, offset, padded)

    def __call__(
        self,
        image: Pixels,
        mask: NDArray[np.int64] | None = None,
        normalisation: Fitted | None = None,
    ) -> Prepared:
        """Prepare an image or a volume, and its mask.

        Parameters
        ----------
        image : ndarray, shape (H, W, C) or (D, H, W, C)
            As `read_image` gives it.
        mask : ndarray, shape (H, W) or (D, H, W), optional
            Class indices, as `read_mask` gives them.
        normalisation : Fitted, optional
            The normalisation's steps with the statistics of the whole volume that a slice was
            cut from; the image's own by default.

        Returns
        -------
        Prepared
            On the CPU.

        Raises
        ------
        DataError
            If the image's bands can't be brought to the network's channels, or the mask has
            another size.
        """
        image = to_channels(image, self.channels)
        size = image.shape[:-1]
        if len(size) != self.dims:
            raise DataError(f"it has {len(size)} spatial dimensions and the network {self.dims}")
        if mask is not None and mask.shape != size:
            raise DataError(f"the mask has the shape {mask.shape} and the image {size}")
        if self.by_type and full_scale(image.dtype) != self.max_value:
            raise DataError(
                f"its values are of the type {image.dtype} and those of the data set's other "
                f"images are divided by {self.max_value:g}; convert it, or name one divisor for "
                "all with max_value=",
                option="max_value",
            )
        if self.keeps_values:
            image = (normalisation or fitted(image, self.steps))(image.astype(np.float32))
        elif image.dtype not in (np.uint8, np.uint16):
            image = image.astype(np.float32)
        image_name, mask_name = ("image", "mask") if self.dims == 2 else ("volume", "mask3d")
        targets = {image_name: np.ascontiguousarray(image)}
        if mask is not None:
            targets[mask_name] = np.ascontiguousarray(mask, dtype=np.int32)  # what OpenCV resizes
        from unetcam.data.pipeline import pipeline_of

        done = pipeline_of(self)(**targets)
        frame = self.frame(size)
        tensor = torch.from_numpy(np.ascontiguousarray(np.moveaxis(done[image_name], -1, 0)))
        labels = None if mask is None else torch.from_numpy(done[mask_name].astype(np.int64))
        return Prepared(tensor, labels, frame)

    def to_yaml(self) -> str:
        """The options, and the albumentations pipeline that they stand for, as YAML.

        Examples
        --------
        >>> print(Preprocessing(channels=1, stride=8).to_yaml())
        schema: 1
        options:
          channels: 1
          size: null
          mode: pad
          stride: 8
        ...
        """
        options = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
            if name not in _IMPLIED or value != _IMPLIED[name]  # as before there was more
        }
        from unetcam.data.pipeline import written_pipeline

        content = {"schema": _SCHEMA, "options": options, "pipeline": written_pipeline(self)}
        return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)

    @classmethod
    def from_yaml(cls, text: str) -> Preprocessing:
        """Read what `to_yaml` wrote.

        Parameters
        ----------
        text : str
            YAML. The pipeline may be left out; where it stands, it has to be the one that the
            options give, so that a file never says two things.

        Returns
        -------
        Preprocessing

        Raises
        ------
        DataError
            If the text is no YAML, has another schema or an unknown option, or if its pipeline
            is not the one that its options give.

        Examples
        --------
        >>> once = Preprocessing(size=(256, 256), mode="resize", mean=(0.5,), std=(0.25,))
        >>> Preprocessing.from_yaml(once.to_yaml()) == once
        True
        """
        try:
            content = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise DataError("the preprocessing is no YAML; write it anew") from error
        if not isinstance(content, Mapping) or not isinstance(content.get("options"), Mapping):
            raise DataError("the preprocessing has no options; write it anew")
        if content.get("schema") != _SCHEMA:
            raise DataError(
                f"the preprocessing has the schema {content.get('schema')} and this version reads "
                f"{_SCHEMA}; write it anew"
            )
        result = cls._from_options(content["options"])
        from unetcam.data.pipeline import is_same_pipeline

        if "pipeline" in content and not is_same_pipeline(content["pipeline"], result):
            raise DataError(
                "the preprocessing's pipeline is not the one that its options give; change the "
                "options and leave the pipeline out"
            )
        return result

    @classmethod
    def _from_options(cls, options: Mapping[str, Any]) -> Preprocessing:
        names = [field.name for field in fields(cls)]
        unknown = sorted(str(name) for name in options if name not in names)
        if unknown:
            raise DataError(
                f"the preprocessing has no option '{unknown[0]}'; the options are "
                f"{', '.join(names)}"
            )
        given: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in options.items()
        }
        try:
            return cls(**given)
        except (TypeError, ValueError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError("an option of the preprocessing has the wrong type") from error


def _whole(value: Any, name: str) -> int:
    if isinstance(value, bool) or int(value) != value or value < 1:
        raise DataError(f"{name}={value} is no whole number of at least 1; give one", option=name)
    return int(value)
