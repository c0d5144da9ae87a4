"""Findings: claims about a network, each tested on the user's own images."""

from unetcam.diagnosis.finding import Diagnosis, Evidence, Finding, Severity, TestRecord

__all__ = ["Diagnosis", "Evidence", "Finding", "Severity", "TestRecord"]
