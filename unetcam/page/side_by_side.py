"""Two networks side by side: what each predicts, where each looks, what its gates let through."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor, nn

from unetcam.cam import UNetCAM
from unetcam.methods import Method
from unetcam.methods.attention import find_gates
from unetcam.page.overlays import COLORMAP
from unetcam.resizing import interpolated
from unetcam.targets import ClassScore, Target, predict


@dataclass(frozen=True, eq=False)
class SideBySide:
    """Networks on the same images; everything at the images' size.

    Attributes
    ----------
    images : Tensor
        (B, C, H, W).
    layers : Mapping of str to str
        By network, the layer whose maps are shown.
    predictions : Mapping of str to Tensor
        By network, (B, H, W) int64.
    maps : Mapping of str to Tensor
        By network, (B, H, W): the target's map, divided by its own maximum, as the networks'
        scores have scales of their own. NaN where the target does not exist.
    gates : Mapping of str to Tensor
        Of the networks that have gates: (B, H, W), the share of the features that passes the last
        gates before the layer, in [0, 1] and not scaled.
    """

    images: Tensor
    layers: Mapping[str, str]
    predictions: Mapping[str, Tensor]
    maps: Mapping[str, Tensor]
    gates: Mapping[str, Tensor]

    def figure(self, image: int = 0) -> Figure:
        """One row for each network: prediction, map, and gates where it has some.

        Parameters
        ----------
        image : int
            Which image of the batch.

        Returns
        -------
        Figure
            Without a window; ``figure.savefig("side.png")`` writes it.
        """
        names = list(self.maps)
        figure = Figure(figsize=(8.8, 2.4 * len(names)), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(len(names), 4, squeeze=False)
        grey = self.images[image].float().mean(dim=0).cpu()
        classes = max(1, max(int(found.max()) for found in self.predictions.values()))
        for row, name in zip(axes, names, strict=True):
            row[0].imshow(grey, cmap="gray")
            row[0].set_ylabel(name)
            row[1].imshow(self.predictions[name][image].cpu(), cmap="viridis", vmin=0, vmax=classes)
            row[2].imshow(self.maps[name][image].cpu(), cmap=COLORMAP, vmin=0, vmax=1)
            if name in self.gates:
                row[3].imshow(self.gates[name][image].cpu(), cmap=COLORMAP, vmin=0, vmax=1)
            else:
                row[3].text(0.5, 0.5, "no gates", ha="center", va="center")
                row[3].set_box_aspect(grey.shape[0] / grey.shape[1])
            titles = ("image", "prediction", f"map at {self.layers[name]}", "what the gates pass")
            for axis, title in zip(row, titles, strict=True):
                axis.set_title(title, fontsize="small")
                axis.set_xticks([])
                axis.set_yticks([])
        return figure


def side_by_side(
    networks: Mapping[str, nn.Module],
    images: Tensor,
    target: Target | None = None,
    *,
    method: str | Method = "gradcam",
    layers: Mapping[str, str] | None = None,
) -> SideBySide:
    """Explain the same images with several networks, with attention and without, say.

    Parameters
    ----------
    networks : Mapping of str to nn.Module
        By the name that is shown.
    images : Tensor
        (B, C, H, W) on the networks' device.
    target : Target, optional
        The mean score of class 1 by default.
    method : str or Method
    layers : Mapping of str to str, optional
        By network, the layer to show; the last of the decoder by default.

    Returns
    -------
    SideBySide

    Raises
    ------
    LayerError
        For an unknown layer, and for one that lies before all gates of a network that has some.

    Examples
    --------
    >>> import torch
    >>> class Gate(nn.Module):
    ...     def forward(self, x):
    ...         return x * torch.sigmoid(x.mean(dim=1, keepdim=True))
    >>> networks = {
    ...     name: nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), gate, nn.Conv2d(4, 2, 1))
    ...     for name, gate in {"with": Gate(), "without": nn.Identity()}.items()}
    >>> found = side_by_side(networks, torch.rand(1, 1, 8, 8), layers={"with": "1", "without": "1"})
    >>> list(found.maps), list(found.gates), found.gates["with"].shape
    (['with', 'without'], ['with'], torch.Size([1, 8, 8]))
    """
    target = ClassScore(1) if target is None else target
    size = tuple(images.shape[2:])
    shown: dict[str, str] = {}
    predictions, maps, gates = {}, {}, {}
    for name, model in networks.items():
        chosen = None if layers is None or name not in layers else [layers[name]]
        cam = UNetCAM(model, chosen, method, example=images)
        shown[name] = cam.layers[-1]
        result = UNetCAM(model, [shown[name]], method)(images, target)
        logits = interpolated(result.logits, size)
        predictions[name] = predict(logits)
        maps[name] = result.resized(size).scaled()[shown[name]][:, 0]
        if find_gates(model, images):
            # Gates are the same for all targets; this one exists in every image.
            passed = UNetCAM(model, [shown[name]], "attention")(images, ClassScore(0))
            gates[name] = passed.resized(size)[shown[name]][:, 0]
    return SideBySide(images, shown, predictions, maps, gates)
