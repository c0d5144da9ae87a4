"""Read images and masks, prepare them for a network, and find the way back."""

from unetcam.data.channels import for_display, to_channels
from unetcam.data.class_files import parse_classes
from unetcam.data.class_table import ClassTable
from unetcam.data.dataset import Item, SegmentationDataset, collate
from unetcam.data.formats import read_image, read_picture
from unetcam.data.frames import Frame
from unetcam.data.masks import read_mask
from unetcam.data.pairing import find_samples
from unetcam.data.pictures import Picture
from unetcam.data.preprocessing import Prepared, Preprocessing
from unetcam.data.samples import IGNORE, Sample, Skipped, require_any
from unetcam.data.sources import Source, open_source

__all__ = [
    "IGNORE",
    "ClassTable",
    "Frame",
    "Item",
    "Picture",
    "Prepared",
    "Preprocessing",
    "Sample",
    "SegmentationDataset",
    "Skipped",
    "Source",
    "collate",
    "find_samples",
    "for_display",
    "open_source",
    "parse_classes",
    "read_image",
    "read_mask",
    "read_picture",
    "require_any",
    "to_channels",
]
