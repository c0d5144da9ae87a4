"""Hooks, state and gradients: the only room that touches autograd."""

from unetcam.engine.differentiable import differentiate
from unetcam.engine.gradients import collect
from unetcam.engine.observe import Observation, observed
from unetcam.engine.run import Collected, Run
from unetcam.engine.state import preserved

__all__ = ["Collected", "Observation", "Run", "collect", "differentiate", "observed", "preserved"]
