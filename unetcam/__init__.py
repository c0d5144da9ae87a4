"""Segmentation-first Grad-CAM for U-Nets."""

from unetcam._version import __version__

__all__ = ["__version__"]
