"""How activations and gradients become a map: every method, registered by its name."""

from unetcam.methods import gradient
from unetcam.methods.gradient import GradientMethod
from unetcam.methods.registry import Method, get, names

__all__ = ["GradientMethod", "Method", "get", "gradient", "names"]
