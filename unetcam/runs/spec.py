"""What determines a run's result, and nothing else."""

from __future__ import annotations

import hashlib
import inspect
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

import torch
import yaml
from torch import nn

from unetcam.errors import RunError
from unetcam.runs.files import digest_of

SCHEMA_VERSION = 1

ErrorKind = Literal["false-positives", "false-negatives", "boundary-errors", "missed-components"]
TargetKind = Literal["class", "predicted", "truth"] | ErrorKind
ERROR_KINDS: tuple[ErrorKind, ...] = get_args(ErrorKind)
TARGET_KINDS: tuple[TargetKind, ...] = ("class", "predicted", "truth", *ERROR_KINDS)
#: The kinds that need a ground truth.
TRUTH_KINDS: tuple[TargetKind, ...] = ("truth", *ERROR_KINDS)


@dataclass(frozen=True)
class RunConfig:
    """Everything that determines the rows of a run.

    Two runs with equal fingerprints give equal rows: bit by bit on a CPU, and up to the device's
    rounding on a GPU. Where the files lie, how many processes read them and which versions of the
    libraries were used is written into the run, but is no part of the fingerprint.

    Attributes
    ----------
    model : str
        MODEL as it was given on the command line.
    model_args : Mapping
        Arguments of the network's factory; plain values only.
    model_digest : str
        What the network is: see :func:`model_digest`.
    data_digest : str
        Digest of the images' and masks' names and contents.
    samples : int
        How many images there are.
    classes : Mapping
        The class table's fields.
    preprocessing : str
        The preprocessing as YAML.
    layers : tuple of str
        The explained layers, deepest first.
    strides : tuple of int
        Their strides.
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
        Seeds the network's construction and the bootstrap.
    batch_size : int
        Images in one pass: rounding depends on it.
    amp : bool
        Whether the network runs in mixed precision.
    device : str
        The device's type: "cpu", "cuda".
    orientation : str or None
        Of volumes, which are explained whole: where their axes run to, see
        :func:`unetcam.data.whole_volumes.read_whole`. None for images.
    tile : tuple of int or None
        Sides of the tiles in which images are explained; None: whole.
    overlap : int or None
        Pixels that tiles share.

    Raises
    ------
    RunError
        For a value that is out of its range.

    Examples
    --------
    >>> config = RunConfig(
    ...     model="smp:Unet", model_digest="0", data_digest="1", samples=2, preprocessing="",
    ...     classes={"names": ["background", "cell"]}, layers=("up",), strides=(2,)
    ... )
    >>> config.fingerprint() == RunConfig.from_dict(config.to_dict()).fingerprint()
    True
    """

    model: str
    model_digest: str
    data_digest: str
    samples: int
    classes: Mapping[str, Any]
    preprocessing: str
    layers: tuple[str, ...]
    strides: tuple[int, ...]
    model_args: Mapping[str, Any] | None = None
    method: str = "gradcam"
    target: TargetKind = "class"
    band: float | None = None
    threshold: float = 0.5
    tolerance: float = 15.0
    seed: int = 0
    batch_size: int = 4
    amp: bool = False
    device: str = "cpu"
    orientation: str | None = None
    tile: tuple[int, ...] | None = None
    overlap: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "model_args", dict(self.model_args or {}))
        check_options(
            target=self.target,
            band=self.band,
            threshold=self.threshold,
            tolerance=self.tolerance,
            seed=self.seed,
            batch_size=self.batch_size,
        )
        if len(self.layers) != len(self.strides):
            raise RunError(
                f"There are {len(self.layers)} layers but {len(self.strides)} strides: give one "
                "stride for each layer."
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as they are written into run.json."""
        values: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RunConfig:
        """Build a configuration from :meth:`to_dict`'s values; unknown ones are left out."""
        known = {f.name: values[f.name] for f in fields(cls) if f.name in values}
        for name in ("layers", "strides", "tile"):
            if known.get(name) is not None:
                known[name] = tuple(known[name])
        return cls(**known)

    def fingerprint(self) -> str:
        """64 hexadecimal digits that differ where the result may differ."""
        values = self.to_dict()
        values["preprocessing"] = preprocessing_options(self.preprocessing)
        values = {name: v for name, v in values.items() if not (name in _LATER and v is None)}
        return digest_of({"schema_version": SCHEMA_VERSION, **values})

    def differences(self, other: Mapping[str, Any]) -> list[str]:
        """Which settings another run's values have otherwise, in words a person can act on."""
        mine = self.to_dict()
        found = []
        for name, value in mine.items():
            theirs = other.get(name)
            if theirs == value:
                continue
            if name == "preprocessing" and same_preprocessing(value, theirs):
                continue
            if name in _DIGESTS:
                found.append(_DIGESTS[name])
            elif name in ("classes", "preprocessing"):
                found.append(name)
            else:
                found.append(
                    f"{name.replace('_', ' ')} ({_short(theirs)} there, {_short(value)} here)"
                )
        return found


#: Settings that came later: unset, they leave the fingerprints of earlier runs as they were.
_LATER = ("orientation", "tile", "overlap")
_DIGESTS = {
    "model_digest": "the network's weights or code",
    "data_digest": "the images or masks",
}


def _short(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def check_options(
    *,
    target: str = "class",
    band: float | None = None,
    threshold: float = 0.5,
    tolerance: float = 15.0,
    seed: int = 0,
    batch_size: int = 1,
    workers: int | None = None,
    limit: int | None = None,
) -> None:
    """Raise a :class:`~unetcam.errors.RunError` for an option that is out of its range.

    >>> check_options(threshold=1.5)
    Traceback (most recent call last):
        ...
    unetcam.errors.RunError: A threshold of 1.5 is no share of a map's maximum: use 0 to 1.
    """
    if target not in TARGET_KINDS:
        raise RunError(f"There is no target '{target}': choose from {', '.join(TARGET_KINDS)}.")
    if band is not None and not 1 <= band < float("inf"):
        raise RunError(f"A band of {band:g} pixels can't hold a pixel: use a width of 1 or more.")
    if not 0 < threshold <= 1:
        raise RunError(f"A threshold of {threshold:g} is no share of a map's maximum: use 0 to 1.")
    if not 0 <= tolerance < float("inf"):
        raise RunError(
            f"A tolerance of {tolerance:g} pixels is negative or endless: use 0 or more."
        )
    if not 0 <= seed < 2**32:
        raise RunError(f"Seed {seed} is out of range: use 0 to {2**32 - 1}.")
    if batch_size < 1:
        raise RunError(f"A batch size of {batch_size} holds no image: use 1 or more.")
    if workers is not None and workers < 0:
        raise RunError(f"{workers} workers can't read anything: use 0 (read here) or more.")
    if limit is not None and limit < 1:
        raise RunError(f"A limit of {limit} leaves no image: use 1 or more.")


def preprocessing_options(text: str) -> Any:
    """What determines a preprocessing: its options, without the libraries' versions beside them.

    >>> preprocessing_options("{options: {stride: 8}, pipeline: {__version__: 2.0.8}}")
    {'stride': 8}
    """
    content = yaml.safe_load(text)
    return content["options"] if isinstance(content, Mapping) and "options" in content else text


def same_preprocessing(one: Any, other: Any) -> bool:
    """Whether two YAML texts of a preprocessing say the same."""
    return bool(preprocessing_options(str(one)) == preprocessing_options(str(other)))


def model_digest(model: nn.Module) -> str:
    """SHA-256 of what a network computes: its structure, weights, buffers and its class's source.

    Parameters
    ----------
    model : nn.Module
        On any device; it is read and left as it was.

    Returns
    -------
    str
        64 hexadecimal digits.

    Examples
    --------
    >>> first = nn.Linear(2, 1)
    >>> twin = nn.Linear(2, 1)
    >>> _ = twin.load_state_dict(first.state_dict())
    >>> model_digest(first) == model_digest(twin)
    True
    """
    digest = hashlib.sha256()
    kind = type(model)
    structure = re.sub(r"0x[0-9a-fA-F]+", "", repr(model))  # addresses differ between processes
    digest.update(f"{kind.__module__}.{kind.__qualname__}\n{structure}\n".encode())
    digest.update(_source(kind))
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name}\n".encode())
        if isinstance(value, torch.Tensor):
            value = value.detach().cpu().contiguous()
            digest.update(f"{value.dtype} {tuple(value.shape)}\n".encode())
            # reshape: a view as bytes needs at least one axis
            digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
        else:
            digest.update(repr(value).encode())
    return digest.hexdigest()


def _source(kind: type) -> bytes:
    try:
        path = inspect.getsourcefile(kind)
        return b"" if path is None else Path(path).read_bytes()
    except (TypeError, OSError):
        return b""


def data_digest(entries: Sequence[tuple[str, Sequence[str]]]) -> str:
    """SHA-256 of the images' ids and the digests of each one's files, in order."""
    return digest_of([[name, list(digests)] for name, digests in entries])


@dataclass(frozen=True)
class ModelRequest:
    """MODEL and what belongs to it, as on the command line.

    Attributes
    ----------
    model : str
        See :func:`unetcam.models.loading.load_model`.
    checkpoint : Path, optional
    model_args : sequence of str
        ``key=value``.
    key : str, optional
        Where the state dict lies inside the checkpoint.
    allow_pickle : bool
        Whether a checkpoint may run code of its own.
    device : str
        "auto", "cpu", "cuda" or "cuda:1".
    channels : int, optional
        Channels of the images; found from the first convolution by default.
    size : tuple of int, optional
        The network's input; images are resized to it, and a network of volumes is looked at in
        it.
    seed : int
        Seeds the construction of a network that has no checkpoint.
    """

    model: str
    checkpoint: Path | None = None
    model_args: Sequence[str] = ()
    key: str | None = None
    allow_pickle: bool = False
    device: str = "auto"
    channels: int | None = None
    size: tuple[int, ...] | None = None
    seed: int = 0


@dataclass(frozen=True)
class Explanation:
    """How images are prepared and what is explained, as on the command line.

    Images and volumes are taken whole, or in tiles of the size `tile`, which overlap by `overlap`
    pixels; the axes of volumes run in the `orientation`, see
    :func:`unetcam.data.whole_volumes.read_whole`.
    """

    layers: Sequence[str] | None = None
    method: str = "gradcam"
    target: TargetKind = "class"
    resize_mode: Literal["pad", "resize"] = "pad"
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    max_value: float | None = None
    amp: bool = False
    tile: tuple[int, ...] | None = None
    overlap: int | None = None
    orientation: str = "RAS"


@dataclass(frozen=True)
class DataRequest:
    """Images, masks and classes, as on the command line."""

    classes: str
    images: Path | None = None
    masks: Path | None = None
    manifest: Path | None = None
    ignore_index: int | None = None
    limit: int | None = None


@dataclass(frozen=True)
class Measuring:
    """How maps are measured, as on the command line.

    Without a `batch_size`, four images go through the network in one pass, and volumes and what
    is cut into tiles one at a time.
    """

    band: float | None = None
    threshold: float = 0.5
    tolerance: float = 15.0
    batch_size: int | None = None
