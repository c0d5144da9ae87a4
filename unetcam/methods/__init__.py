"""How activations and gradients become a map: every method, registered by its name."""

from unetcam.methods import gradient
from unetcam.methods.registry import Method, get, names

__all__ = ["Method", "get", "gradient", "names"]
