"""A run over a data set: its configuration, its folder, its loop, and what its rows say."""

from unetcam.runs.compare import Comparison, compare
from unetcam.runs.finished import RunData
from unetcam.runs.loop import Progress, Silent, execute
from unetcam.runs.prepare import Plan, open_network, plan_run
from unetcam.runs.publish import publishing
from unetcam.runs.spec import DataRequest, Explanation, Measuring, ModelRequest, RunConfig
from unetcam.runs.store import RunStore
from unetcam.runs.summary import summarise

__all__ = [
    "Comparison",
    "DataRequest",
    "Explanation",
    "Measuring",
    "ModelRequest",
    "Plan",
    "Progress",
    "RunConfig",
    "RunData",
    "RunStore",
    "Silent",
    "compare",
    "execute",
    "open_network",
    "plan_run",
    "publishing",
    "summarise",
]
