"""What a person asks for, as on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from unetcam.runs.config import TargetKind


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
    :func:`unetcam.data.whole.read_whole`.
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
