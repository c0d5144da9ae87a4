"""Finding a network's layers, and loading the network."""

from unetcam.models.loading import load_model, parse_model_args

__all__ = ["load_model", "parse_model_args"]
