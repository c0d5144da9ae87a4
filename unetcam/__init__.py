"""Segmentation-first Grad-CAM for U-Nets.

>>> import torch, unetcam
>>> sorted(unetcam.__all__)
['CAMResult', 'UNetCAM', '__version__', 'find_layers', 'targets']
"""

from unetcam import targets
from unetcam._version import __version__
from unetcam.cam import UNetCAM
from unetcam.models.topology import find_layers
from unetcam.result import CAMResult

__all__ = ["CAMResult", "UNetCAM", "__version__", "find_layers", "targets"]
