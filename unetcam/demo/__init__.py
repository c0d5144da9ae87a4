"""A small trained U-Net and the held-out brain slices that it is explained on."""

from unetcam.demo.network import DemoUNet
from unetcam.demo.slices import (
    CLASSES,
    DEMO_STATISTICS,
    HELD_OUT_SLICES,
    TRAINING_SLICES,
    read_slices,
    write_demo_data,
)
from unetcam.demo.weights import demo_metadata, held_out_iou, load_demo_model

__all__ = [
    "CLASSES",
    "DEMO_STATISTICS",
    "HELD_OUT_SLICES",
    "TRAINING_SLICES",
    "DemoUNet",
    "demo_metadata",
    "held_out_iou",
    "load_demo_model",
    "read_slices",
    "write_demo_data",
]
