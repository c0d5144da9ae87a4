"""Change an image, or a channel, on purpose and predict again: what the network leans on."""

from unetcam.interventions import fills
from unetcam.interventions.channels import ScaledChannels, scale_channels
from unetcam.interventions.effects import Baseline, Effects, bootstrap_interval, measure
from unetcam.interventions.hiding import Surroundings, moved
from unetcam.interventions.prediction import Prediction, Predictor, predictor_of, read_classes
from unetcam.interventions.regions import Regions
from unetcam.interventions.reliance_maps import Reliance, reliance
from unetcam.interventions.windows import Search, Window, search

__all__ = [
    "Baseline",
    "Effects",
    "Prediction",
    "Predictor",
    "Regions",
    "Reliance",
    "ScaledChannels",
    "Search",
    "Surroundings",
    "Window",
    "bootstrap_interval",
    "fills",
    "measure",
    "moved",
    "predictor_of",
    "read_classes",
    "reliance",
    "scale_channels",
    "search",
]
