"""Networks: loaded with their weights, looked at once, and their layers."""

from unetcam.models.loaded_model import LoadedModel, find_layers
from unetcam.models.loading import load_model, parse_model_args
from unetcam.models.opening import load

__all__ = ["LoadedModel", "find_layers", "load", "load_model", "parse_model_args"]
