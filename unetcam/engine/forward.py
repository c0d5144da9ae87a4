"""A forward alone: the logits, and what the layers gave."""

from __future__ import annotations

import torch
from torch import Tensor

from unetcam.engine.run import Run
from unetcam.engine.state import preserved
from unetcam.engine.taps import Taps
from unetcam.engine.tensors import plain_images


def forward(run: Run) -> tuple[Tensor, dict[str, Tensor]]:
    """The logits and the layers' activations of a run, without a graph.

    Parameters
    ----------
    run : Run
        Its score is not asked for.

    Returns
    -------
    logits : Tensor
        (B, C, *spatial).
    activations : dict of str to Tensor
        (B, K, *layer_spatial) each, as the layer gave it.

    Raises
    ------
    LayerError
        For a layer that the forward never reaches, or that gives no feature map.
    """
    images = plain_images(run.images, channels_last=run.channels_last)
    with preserved(run.model), torch.no_grad(), Taps(run.layers, _ignore) as taps:
        logits = run.output(run.model(images))
        taps.seal()
        return logits, dict(taps.activations)


def _ignore(name: str, activation: Tensor, gradient: Tensor) -> None:
    """No gradient comes."""
