"""Everything that a person asked for, in one frozen value, from flag or keyword to measure."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, get_args

from unetcam.data import ClassTable, Preprocessing
from unetcam.errors import RunError, suggestion
from unetcam.models import parse_model_args
from unetcam.runs.digests import digest_of
from unetcam.runs.option_values import class_table_of, plain_value

SCHEMA_VERSION = 2

ErrorKind = Literal["false-positives", "false-negatives", "boundary-errors", "missed-components"]
TargetKind = Literal["class", "predicted", "truth"] | ErrorKind
ERROR_KINDS: tuple[ErrorKind, ...] = get_args(ErrorKind)
TARGET_KINDS: tuple[TargetKind, ...] = ("class", "predicted", "truth", *ERROR_KINDS)
#: The kinds that need a ground truth.
TRUTH_KINDS: tuple[TargetKind, ...] = ("truth", *ERROR_KINDS)


def _origin(default: Any = None) -> Any:
    """A field that says where something lies or how it is opened: no part of the fingerprint."""
    return field(default=default, metadata={"origin": True})


@dataclass(frozen=True, kw_only=True)
class Spec:
    """Everything that a person asked for: each field is a keyword of Python and a flag of the cli.

    A field that is None is chosen when the run is prepared, from the network and the files;
    :meth:`settled` gives the spec with what was chosen. It is what is written into run.json and
    read back. Two runs with equal fingerprints give equal rows: bit by bit on a CPU, and up to the
    device's rounding on a GPU.

    Attributes
    ----------
    model : str
        MODEL as it was given on the command line; of a network in memory its class's name.
    model_args : Mapping
        Arguments of the network's factory; plain values only.
    checkpoint : str or None
        The file with the weights.
    key : str or None
        Where the state dict lies inside the checkpoint, or the prefix of its names.
    allow_pickle : bool
        Whether a checkpoint may run code of its own.
    partial : bool
        Whether weights that the checkpoint lacks stay as the factory made them.
    device : str
        "auto", "cpu", "cuda" or "cuda:1"; the device's type in a settled spec.
    channels : int or None
        Channels of the network's input; None: read from its first convolution.
    classes : ClassTable or None
        The classes' names and how masks write them; None: "class 0" and so on.
    images, masks, manifest : str or None
        Where the data lies.
    limit : int or None
        Take the first so many images only.
    mask_suffix, pair : str or None
        How masks are called, see :func:`unetcam.data.pairing.find_samples`.
    max_pixels : int or None
        Pixels of the largest image that is decoded; see :class:`unetcam.data.options.DataOptions`,
        also for the following four.
    exif : {"auto", "upright", "stored"}
    instances : bool
    bands : tuple of int or None
    stretch : str or None
    axes : str or None
        Of volumes in TIFF and NumPy files: what their axes are, as in "ZYX".
    size : tuple of int or None
        The network's input: images are resized to it; a network of volumes is only looked at in
        it.
    resize_mode : {"pad", "resize"}
        See :class:`~unetcam.data.Preprocessing`, also for the following four.
    mean, std : tuple of float
    max_value : float or None
    normalise : str or None
    orientation : str or None
        Of volumes, which are explained whole: where their axes run to, see
        :func:`unetcam.data.whole_volumes.read_whole`. None for images.
    layers : tuple of str or None
        The explained layers, deepest first; None: every decoder layer that suits the method.
    method : str
        Name of the method.
    target : {"class", "predicted", "truth", "false-positives", "false-negatives", \
            "boundary-errors", "missed-components"}
        What is explained: a class's mean score over all pixels, over the pixels predicted as the
        class, over the pixels that truly are of the class, or over its errors of one kind; those
        of the boundary lie in a band of 2 % of the diagonal of the network's input.
    band : float or None
        Width of the band in pixels; None: 2 % of the image's diagonal.
    threshold : float
        Share of a map's maximum at which it is cut for the IoU and Dice of the overlap.
    tolerance : float
        Pixels of tolerance of the pointing game.
    seed : int
        Seeds the network's construction, what the method draws, and the bootstrap.
    batch_size : int or None
        Images in one pass (rounding depends on it); None: 4, and 1 for volumes and tiles.
    amp : bool
        Whether the network runs in mixed precision.
    head : {"softmax", "sigmoid"} or None
        Whether a pixel belongs to one class or to each whose logit is above zero; None: as the
        network ends, in a softmax where that can't be told.
    tile : tuple of int or None
        Sides of the tiles in which images are explained; None: whole.
    overlap : int or None
        Pixels that tiles share; None: about a quarter of a tile.
    strides : tuple of int or None
        Strides of `layers`.
    by_type : bool
        Whether `max_value` was decided by the type of the images.
    stride, dims : int or None
        The network's largest stride; 2 for a network of images and 3 for one of volumes.
    model_digest, data_digest : str
        What the network is, and what the images and masks hold: see :mod:`unetcam.runs.digests`.
    samples : int
        How many images there are.

    Raises
    ------
    RunError
        For a value that is out of its range.

    Examples
    --------
    >>> spec = Spec.of(classes="background,cell", band=3)
    >>> spec.classes.names, spec.band
    (('background', 'cell'), 3)
    >>> Spec.from_dict(spec.to_dict()) == spec
    True
    >>> Spec.of(treshold=0.4)
    Traceback (most recent call last):
        ...
    unetcam.errors.RunError: There is no option 'treshold': did you mean threshold?
    """

    model: str = ""
    model_args: Mapping[str, Any] = field(default_factory=dict)
    checkpoint: str | None = _origin()
    key: str | None = _origin()
    allow_pickle: bool = _origin(False)
    partial: bool = _origin(False)
    device: str = "auto"
    channels: int | None = None
    classes: ClassTable | None = None
    images: str | None = _origin()
    masks: str | None = _origin()
    manifest: str | None = _origin()
    limit: int | None = _origin()
    mask_suffix: str | None = _origin()
    pair: str | None = _origin()
    max_pixels: int | None = _origin()
    exif: Literal["auto", "upright", "stored"] = "auto"
    instances: bool = False
    bands: tuple[int, ...] | None = _origin()
    stretch: str | None = _origin()
    axes: str | None = None
    size: tuple[int, ...] | None = None
    resize_mode: Literal["pad", "resize"] = "pad"
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    max_value: float | None = None
    normalise: str | None = None
    orientation: str | None = "RAS"
    layers: tuple[str, ...] | None = None
    method: str = "gradcam"
    target: TargetKind = "class"
    band: float | None = None
    threshold: float = 0.5
    tolerance: float = 15.0
    seed: int = 0
    batch_size: int | None = None
    amp: bool = False
    head: Literal["softmax", "sigmoid"] | None = None
    tile: tuple[int, ...] | None = None
    overlap: int | None = None
    strides: tuple[int, ...] | None = None
    by_type: bool = False
    stride: int | None = None
    dims: int | None = None
    model_digest: str = ""
    data_digest: str = ""
    samples: int = 0

    def __post_init__(self) -> None:
        self._check_ranges()
        if self.strides is not None and len(self.layers or ()) != len(self.strides):
            raise RunError(
                f"There are {len(self.layers or ())} layers but {len(self.strides)} strides: give "
                "one stride for each layer."
            )

    def _check_ranges(self) -> None:
        if self.target not in TARGET_KINDS:
            raise RunError(
                f"There is no target '{self.target}': choose from {', '.join(TARGET_KINDS)}.",
                option="target",
            )
        if self.band is not None and not 1 <= self.band < float("inf"):
            raise RunError(
                f"A band of {self.band:g} pixels can't hold a pixel: use a width of 1 or more.",
                option="band",
            )
        if self.head not in (None, "softmax", "sigmoid"):
            raise RunError(
                f"There is no head '{self.head}': use softmax, where a pixel belongs to one class, "
                "or sigmoid, where it may belong to several or none.",
                option="head",
            )
        if not 0 < self.threshold <= 1:
            raise RunError(
                f"A threshold of {self.threshold:g} is no share of a map's maximum: use 0 to 1.",
                option="threshold",
            )
        if not 0 <= self.tolerance < float("inf"):
            raise RunError(
                f"A tolerance of {self.tolerance:g} pixels is negative or endless: use 0 or more.",
                option="tolerance",
            )
        if not 0 <= self.seed < 2**32:
            raise RunError(
                f"Seed {self.seed} is out of range: use 0 to {2**32 - 1}.", option="seed"
            )
        counts = {
            "batch_size": "A batch size of {} holds no image",
            "limit": "A limit of {} leaves no image",
            "channels": "{} channels hold no image",
        }
        for name, mistake in counts.items():
            value = getattr(self, name)
            if value is not None and value < 1:
                raise RunError(f"{mistake.format(value)}: use 1 or more.", option=name)

    @classmethod
    def of(
        cls,
        *,
        classes: ClassTable | str | os.PathLike[str] | Sequence[str] | None = None,
        ignore_index: int | None = None,
        **options: Any,
    ) -> Spec:
        """A spec from options as people write them.

        Parameters
        ----------
        classes : ClassTable, str, path or sequence of str, optional
            A table, names with commas between them, the path of a file, or a list of names.
        ignore_index : int, optional
            The mask value of pixels that count nowhere.
        **options
            The other fields. None leaves a field at its default, a list becomes a tuple, a path
            becomes text, and `model_args` may also be a list of ``key=value``.

        Raises
        ------
        UnetcamError
            For an unknown option, or a value that is out of its range.
        """
        known = {one.name for one in fields(cls)}
        for name in options:
            if name not in known:
                raise RunError(f"There is no option '{name}': {suggestion(name, known)}")
        given = {name: plain_value(value) for name, value in options.items() if value is not None}
        if isinstance(given.get("model_args"), tuple):
            given["model_args"] = parse_model_args(given["model_args"])
        return cls(classes=class_table_of(classes, ignore_index), **given)

    def settled(self, **chosen: Any) -> Spec:
        """The spec with what was chosen for it."""
        return replace(self, **chosen)

    @property
    def preprocessing(self) -> Preprocessing:
        """How the network takes an image: to `size`, or up to what its stride needs.

        Volumes keep their size: a network of volumes is only looked at in another.
        """
        if self.channels is None or self.stride is None or self.dims is None:
            raise RunError("The spec is not settled: prepare it for a network first.")
        size = None if self.dims == 3 else self.size
        return Preprocessing(
            channels=self.channels,
            size=size,
            mode=self.resize_mode,
            stride=self.stride if size is None else 1,
            mean=self.mean,
            std=self.std,
            max_value=self.max_value,
            dims=self.dims,
            normalise=self.normalise,
            by_type=self.by_type,
        )

    @property
    def data_options(self) -> dict[str, Any]:
        """What :func:`unetcam.data.open_source` is told, beside the data and the classes."""
        options = {name: getattr(self, name) for name in _SOURCE}
        options["tiled"] = self.tile is not None
        return {name: value for name, value in options.items() if value is not None}

    def prepared_by(self, preprocessing: Preprocessing) -> Spec:
        """The spec with what was decided of the preprocessing for the whole data set."""
        return replace(
            self,
            mean=preprocessing.mean,
            std=preprocessing.std,
            max_value=preprocessing.max_value,
            by_type=preprocessing.by_type,
        )

    @property
    def tiles(self) -> tuple[tuple[int, ...], int] | None:
        """Sides and overlap of the tiles; None where images are explained whole."""
        return None if self.tile is None else (self.tile, self.overlap or 0)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes' names, in the order of the network's channels."""
        return () if self.classes is None else self.classes.names

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as they are written into run.json."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        values["classes"] = None if self.classes is None else self.classes.to_dict()
        plain: dict[str, Any] = json.loads(json.dumps(values, default=str))
        return plain

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Spec:
        """Build a spec from :meth:`to_dict`'s values; unknown ones are left out."""
        known = {one.name: values[one.name] for one in fields(cls) if one.name in values}
        arguments = {name: plain_value(value) for name, value in known.items()}
        if isinstance(arguments.get("classes"), Mapping):
            arguments["classes"] = ClassTable.from_dict(arguments["classes"])
        arguments["model_args"] = dict(values.get("model_args") or {})
        return cls(**arguments)

    def determining(self) -> dict[str, Any]:
        """The plain values that determine the rows: without where things lie."""
        origins = {one.name for one in fields(self) if one.metadata.get("origin")}
        return {name: value for name, value in self.to_dict().items() if name not in origins}

    def fingerprint(self) -> str:
        """64 hexadecimal digits that differ where the result may differ.

        A field at its default does not count, so that a later version with a further option knows
        the runs of this one.
        """
        plain = Spec().determining()
        own = {name: value for name, value in self.determining().items() if value != plain[name]}
        return digest_of({"schema_version": SCHEMA_VERSION, **own})

    def differences(self, other: Mapping[str, Any]) -> list[str]:
        """Which settings another run's values have otherwise, in words a person can act on."""
        differing = []
        for name, value in self.determining().items():
            theirs = other.get(name)
            if theirs == value:
                continue
            if name in _DIGESTS:
                differing.append(_DIGESTS[name])
            elif name == "classes":
                differing.append(name)
            else:
                differing.append(
                    f"{name.replace('_', ' ')} ({_short(theirs)} there, {_short(value)} here)"
                )
        return differing


_SOURCE = ("mask_suffix", "pair", "max_pixels", "exif", "instances", "bands", "stretch", "axes")
_DIGESTS = {
    "model_digest": "the network's weights or code",
    "data_digest": "the images or masks",
}


def _short(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."
