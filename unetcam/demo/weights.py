"""The demo's trained weights, and how well they do on the held-out slices."""

from __future__ import annotations

import json
from importlib import resources
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load
from torch.utils.data import DataLoader, TensorDataset

from unetcam.demo.network import DemoUNet
from unetcam.demo.slices import CLASSES, DEMO_STATISTICS, HELD_OUT_SLICES, Slices, read_slices

if TYPE_CHECKING:
    from torch import Tensor


def load_demo_model() -> DemoUNet:
    """Build the demo's network with its trained weights, on the CPU and in eval mode.

    Examples
    --------
    >>> model = load_demo_model()
    >>> model.training, model.outc.out_channels
    (False, 4)
    """
    model = DemoUNet(in_channels=1, classes=len(CLASSES))
    model.load_state_dict(load(_packaged("weights.safetensors")))
    return model.eval()


def demo_metadata() -> dict[str, Any]:
    """Read how the weights were trained and the IoU per class that they reach.

    Examples
    --------
    >>> metadata = demo_metadata()
    >>> list(metadata["held_out_iou"])
    ['background', 'other brain', 'grey matter', 'white matter']
    """
    metadata: dict[str, Any] = json.loads(_packaged("weights.json"))
    return metadata


def normalise(slices: Slices) -> Tensor:
    """Turn (N, H, W) uint8 slices into the (N, 1, H, W) float32 input of the demo's network."""
    images = torch.from_numpy(slices.images).unsqueeze(1).float() / 255
    return (images - DEMO_STATISTICS.mean[0]) / DEMO_STATISTICS.std[0]


def held_out_iou(model: torch.nn.Module, slices: Slices | None = None) -> Tensor:
    """Measure the intersection over union per class, pooled over the pixels of all slices.

    Parameters
    ----------
    model
        A network of four classes that takes the demo's normalised slices, on any device.
    slices
        What to measure on; the held-out slices by default.

    Returns
    -------
    Tensor
        Shape (4,), float32, on the model's device, in the order of ``CLASSES``.
    """
    # Imported here: it takes longer than all of the demo's other imports together.
    from torchmetrics.functional.classification import multiclass_jaccard_index

    slices = read_slices(HELD_OUT_SLICES) if slices is None else slices
    device = next(model.parameters()).device
    batches = DataLoader(TensorDataset(normalise(slices)), batch_size=8)
    with torch.inference_mode():
        predicted = torch.cat([model(images.to(device)).argmax(dim=1) for (images,) in batches])
    truth = torch.from_numpy(slices.masks).to(device).long()
    return multiclass_jaccard_index(predicted, truth, num_classes=len(CLASSES), average="none")


def _packaged(name: str) -> bytes:
    return (resources.files("unetcam.demo") / name).read_bytes()
