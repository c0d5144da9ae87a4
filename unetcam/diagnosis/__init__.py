"""Findings: claims about a network, each tested on the user's own images."""

from unetcam.diagnosis import background_evidence as _background_evidence
from unetcam.diagnosis import classes_permuted as _classes_permuted
from unetcam.diagnosis import input_scaling as _input_scaling
from unetcam.diagnosis import leaning as _leaning
from unetcam.diagnosis import leaning_class as _leaning_class
from unetcam.diagnosis import learned as _learned
from unetcam.diagnosis import outline as _outline
from unetcam.diagnosis import small_objects as _small_objects
from unetcam.diagnosis import stages as _stages
from unetcam.diagnosis import whole_image as _whole_image
from unetcam.diagnosis.diagnosing import diagnose
from unetcam.diagnosis.finding import Diagnosis, Evidence, Finding, Severity, TestRecord
from unetcam.diagnosis.registry import Kind, Screened, Tested, get, kinds, names, register

#: Importing them registers the kinds.
KIND_MODULES = (
    _classes_permuted,
    _input_scaling,
    _learned,
    _outline,
    _small_objects,
    _leaning,
    _leaning_class,
    _background_evidence,
    _whole_image,
    _stages,
)

__all__ = [
    "Diagnosis",
    "Evidence",
    "Finding",
    "Kind",
    "Screened",
    "Severity",
    "TestRecord",
    "Tested",
    "diagnose",
    "get",
    "kinds",
    "names",
    "register",
]
