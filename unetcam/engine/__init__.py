"""Hooks, state and gradients: the only room that touches autograd."""

from unetcam.engine.gradients import Collected, collect
from unetcam.engine.state import preserved

__all__ = ["Collected", "collect", "preserved"]
