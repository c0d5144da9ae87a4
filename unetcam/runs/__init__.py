"""A run over a data set: its spec, its folder, its loop, and what its rows say."""

from unetcam.runs.compare import Comparison, compare
from unetcam.runs.loop import execute
from unetcam.runs.prepare import Plan, evaluated, open_network, prepare, settle
from unetcam.runs.progress import Progress, Silent
from unetcam.runs.publish import publishing
from unetcam.runs.run import Run
from unetcam.runs.spec import Spec
from unetcam.runs.store import RunStore
from unetcam.runs.summary import summarise

__all__ = [
    "Comparison",
    "Plan",
    "Progress",
    "Run",
    "RunStore",
    "Silent",
    "Spec",
    "compare",
    "evaluated",
    "execute",
    "open_network",
    "prepare",
    "publishing",
    "settle",
    "summarise",
]
