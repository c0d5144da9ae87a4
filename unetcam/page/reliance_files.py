"""Reliance maps as files: a picture with a scale in flips, the raw map, and the shares."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from unetcam.data import Item
from unetcam.data.options import DataOptions
from unetcam.data.whole_volumes import read_whole
from unetcam.page import charts
from unetcam.page.findings import REGION_COLOUR
from unetcam.page.overlays import COLORMAP, PREDICTION_COLOUR, Outlines, overlay
from unetcam.page.text import file_names, percent
from unetcam.runs import Spec
from unetcam.runs.files import replacing, write_json

#: What the colours of a picture count.
UNIT = "share of the class's predicted pixels that flip"
_WIDTH = 640


@dataclass(frozen=True, eq=False)
class ImageReliance:
    """What the prediction of one image rests on, in the image's own frame.

    Attributes
    ----------
    item : Item
    prediction : Tensor
        (H, W) int64, under a sigmoid head (T, H, W) bool; of a volume (D, H, W).
    maps : Tensor
        (T, H, W) or (T, D, H, W) float32 by class: the share of the class's predicted pixels that
        flip when a window around the pixel is hidden, 0 to 1; NaN where nothing was hidden.
    windows : Tensor
        Of the maps' shape, bool: by class the smallest window that keeps most of the strongest
        one's effect.
    shares : dict of int to dict
        By class the share that flips when its strongest window ("flips"), the same shape elsewhere
        ("control"), the ring around it ("near"), all beyond ("far") or both ("all") is hidden.
    fills : tuple of str
    band : float
        Pixels around the class that were spared, of the network's input.
    """

    item: Item
    prediction: Tensor
    maps: Tensor
    windows: Tensor
    shares: Mapping[int, Mapping[str, float]]
    fills: tuple[str, ...]
    band: float

    def to_dict(self, names: tuple[str, ...]) -> dict[str, Any]:
        """Plain values for scripts: the shares by class, NaN as None."""
        return {
            "unit": UNIT,
            "fills": list(self.fills),
            "band": self.band,
            "classes": {
                names[index]: {key: None if math.isnan(one) else one for key, one in own.items()}
                for index, own in self.shares.items()
            },
        }


def write_reliance_image(found: ImageReliance, spec: Spec, folder: Path) -> list[Path]:
    """Write one PNG per class that has a map, ``maps.npz`` and ``reliance.json``.

    ``maps.npz`` holds ``classes``, ``prediction`` and ``map:reliance`` (T, H, W), raw.

    Returns
    -------
    list of Path
    """
    names = tuple(spec.class_names)
    folder.mkdir(parents=True, exist_ok=True)
    maps = found.maps.float().cpu().numpy()
    prediction = found.prediction.cpu().numpy()
    arrays = {"classes": np.array(names), "prediction": prediction, "map:reliance": maps}
    archive = folder / "maps.npz"
    with replacing(archive) as draft, draft.open("wb") as handle:
        np.savez_compressed(handle, allow_pickle=False, **arrays)
    written = [archive, _shares_file(found, names, folder)]
    for index, name in enumerate(file_names(names)):
        if index in found.shares:
            own = prediction == index if prediction.ndim == 2 else prediction[index]
            path = folder / f"reliance.{name}.png"
            with replacing(path) as draft:
                _draw(found, index, own, names[index], draft)
            written.append(path)
    return written


def write_reliance_volume(found: ImageReliance, spec: Spec, folder: Path) -> list[Path]:
    """Write the raw map of each class that has one as a volume of the input's kind and place.

    Returns
    -------
    list of Path
    """
    sample, names = found.item.sample, tuple(spec.class_names)
    assert sample.orientation is not None
    assert sample.image is not None
    limit = DataOptions(**spec.data_options).limit
    whole = read_whole(sample.image, sample.orientation, max_pixels=limit, axes=sample.axes)
    folder.mkdir(parents=True, exist_ok=True)
    written = [_shares_file(found, names, folder)]
    for index, name in enumerate(file_names(names)):
        if index in found.shares:
            path = folder / f"reliance.{name}{whole.suffix}"
            with replacing(path) as draft:
                draft.write_bytes(whole.encoded(found.maps[index].float().cpu().numpy()))
            written.append(path)
    return written


def _shares_file(found: ImageReliance, names: tuple[str, ...], folder: Path) -> Path:
    path = folder / "reliance.json"
    write_json(path, found.to_dict(names))
    return path


def _draw(
    found: ImageReliance, index: int, predicted: NDArray[np.bool_], name: str, path: Path
) -> None:
    """The map over the image, by a scale from 0 to 1 that is the same in every picture."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    drawn = overlay(found.item.image, found.maps[index].float().cpu().numpy(), width=_WIDTH)
    window = found.windows[index].cpu().numpy()
    inks = (REGION_COLOUR, PREDICTION_COLOUR)
    drawn = Outlines(drawn.shape[:2], window, predicted, inks).over(drawn)
    height = 4.6 * drawn.shape[0] / drawn.shape[1]
    figure = Figure(figsize=(6.4, height + 1.1), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(drawn, aspect="equal")
    axes.set_axis_off()
    title = f"What the prediction of {name} rests on beside itself"
    figure.suptitle("\n".join(wrap(title, 70)), fontsize=10, parse_math=False)
    figure.supxlabel("\n".join(wrap(_sentence(found.shares[index]), 90)), fontsize=8)
    colours = ScalarMappable(Normalize(0, 1), COLORMAP)
    bar = figure.colorbar(colours, ax=axes, aspect=30)
    bar.set_label(f"{UNIT}\nwhen a small window around the place is hidden", fontsize=8)
    charts.save_png(figure, path)


def _sentence(shares: Mapping[str, float]) -> str:
    said = "Blue: predicted as the class, never hidden. "
    if math.isfinite(shares["flips"]):
        said += f"Window outlined in pink hidden: {percent(shares['flips'])} flip"
        if math.isfinite(shares["control"]):
            said += f", the same shape elsewhere {percent(shares['control'])}"
        said += ". "
    return said + f"All surroundings hidden: {percent(shares['all'])} flip."
