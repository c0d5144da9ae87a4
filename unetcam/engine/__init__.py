"""Hooks, state and gradients: the only room that touches autograd."""

from unetcam.engine.backward import collect
from unetcam.engine.differentiable import differentiate
from unetcam.engine.perturb import Observation, observed
from unetcam.engine.request import Collected, Request
from unetcam.engine.second_order import differentiate_twice
from unetcam.engine.state import preserved

__all__ = [
    "Collected",
    "Observation",
    "Request",
    "collect",
    "differentiate",
    "differentiate_twice",
    "observed",
    "preserved",
]
