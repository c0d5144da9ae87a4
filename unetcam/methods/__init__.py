"""How activations and gradients become a map: every method, registered by its name."""

from unetcam.methods import activation, baseline, gradient, perturbation, smooth, surrogate
from unetcam.methods.gradient import GradientMethod
from unetcam.methods.registry import Method, Wrapper, get, names, wrappers

__all__ = [
    "GradientMethod",
    "Method",
    "Wrapper",
    "activation",
    "baseline",
    "get",
    "gradient",
    "names",
    "perturbation",
    "smooth",
    "surrogate",
    "wrappers",
]
