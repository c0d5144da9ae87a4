"""How activations and gradients become a map: every method, registered by its name."""

from unetcam.methods import (
    activation,
    attention,
    baseline,
    gradient,
    perturbation,
    refine,
    shapley,
    smooth,
    surrogate,
)
from unetcam.methods.gradient import GradientMethod
from unetcam.methods.registry import Method, Wrapper, get, names, wrappers

__all__ = [
    "GradientMethod",
    "Method",
    "Wrapper",
    "activation",
    "attention",
    "baseline",
    "get",
    "gradient",
    "names",
    "perturbation",
    "refine",
    "shapley",
    "smooth",
    "surrogate",
    "wrappers",
]
