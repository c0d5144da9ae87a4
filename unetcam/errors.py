"""The errors that tell a person what was wrong and what to do."""

from __future__ import annotations


class UnetcamError(Exception):
    """What a person asked for can't be done; the message is one sentence with the remedy.

    The command line prints the message and exits with code 2.
    """


class LayerError(UnetcamError, ValueError):
    """A layer that does not exist, is never reached, or gives nothing that can be explained."""


class TargetError(UnetcamError, ValueError):
    """A target that does not fit the logits: a class out of range, a mask of the wrong shape."""


class ModelError(UnetcamError, ValueError):
    """A model that can't be loaded, or whose output is no segmentation map."""


class NumericalError(UnetcamError, ArithmeticError):
    """NaN or infinity where a finite number is needed."""


class MemoryBudgetError(UnetcamError, ValueError):
    """A memory budget that is no amount of memory, or that the result alone exceeds."""


class DataError(UnetcamError, ValueError):
    """An image, mask, manifest or class table that can't be used."""


class MeasureError(UnetcamError, ValueError):
    """Maps, masks or settings that can't be measured; the message says which and the remedy."""


class RunError(UnetcamError, RuntimeError):
    """A run folder that can't be written, continued or compared."""
