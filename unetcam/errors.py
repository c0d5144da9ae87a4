"""The errors that tell a person what was wrong and what to do."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence


class UnetcamError(Exception):
    """What a person asked for can't be done; the message is one sentence with the remedy.

    Options stand in the message as Python writes them, as in ``mean=`` or ``force=True``. The
    command line words those that are named in `option` as flags, and exits with code 2.

    Parameters
    ----------
    message : str
        One sentence. A capital at its beginning and a stop at its end are put on where they lack.
    option : str or tuple of str
        The options that the message speaks of.

    Examples
    --------
    >>> error = UnetcamError("It is there: give force=True.", option="force")
    >>> str(error), error.as_flags()
    ('It is there: give force=True.', 'It is there: give --force.')
    >>> error = UnetcamError("its header is damaged")
    >>> str(error), error.clause
    ('Its header is damaged.', 'its header is damaged')

    Attributes
    ----------
    options : tuple of str
    clause : str
        The message as it was given, without a stop: what another sentence can end with.
    """

    def __init__(self, message: str = "", *, option: str | tuple[str, ...] = ()) -> None:
        super().__init__(sentence(message))
        self.clause = message.rstrip(".")
        self.options = (option,) if isinstance(option, str) else tuple(option)

    def as_flags(self) -> str:
        """The message with its options as flags of the command line."""
        return as_flags(str(self), self.options)


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


def sentence(text: str) -> str:
    """Text with a capital at its beginning and a stop at its end.

    What begins with the name of an option, a file or anything but a plain word keeps it.

    Examples
    --------
    >>> sentence("the mask is empty; write it again"), sentence("pair='x' is no pattern.")
    ('The mask is empty; write it again.', "pair='x' is no pattern.")
    """
    first, *_ = text.split(maxsplit=1) or [""]
    if first.isascii() and first.isalpha() and first.islower():
        text = text[0].upper() + text[1:]
    return text if not text or text[-1] in ".?!" else text + "."


def as_flags(text: str, options: Iterable[str]) -> str:
    """A sentence with these options as flags of the command line.

    Examples
    --------
    >>> as_flags("Give size=(64, 64), or batch_size=2.", ["size", "batch_size"])
    'Give --size (64, 64), or --batch-size 2.'
    """
    for name in options:
        flag = "--" + name.replace("_", "-")
        text = re.sub(rf"\b{name}=True\b", flag, text)
        text = re.sub(rf"\b{name}=[\"']([^\"']*)[\"']", rf"{flag} \1", text)
        text = re.sub(rf"\b{name}=(?=[\w(\[])", f"{flag} ", text)
        text = re.sub(rf"\b{name}=", flag, text)
    return text


_SLIPS = (AttributeError, NameError, AssertionError)


def is_own_bug(error: BaseException) -> bool:
    """Whether an exception tells of a slip in this package's code, and not of what it was given.

    That is a missing attribute, an unknown name or a failed assertion at a line of this package.

    Examples
    --------
    >>> is_own_bug(AttributeError("raised nowhere"))
    False
    """
    trace = error.__traceback__
    if trace is None or not isinstance(error, _SLIPS):
        return False
    while trace.tb_next is not None:
        trace = trace.tb_next
    module = str(trace.tb_frame.f_globals.get("__name__", ""))
    return module.partition(".")[0] == __name__.partition(".")[0]


_REASON_LENGTH = 160


def reason(error: BaseException) -> str:
    """Word an exception of somebody else's code in one short clause.

    Examples
    --------
    >>> reason(ValueError("no such size.\\nTry 3."))
    'ValueError: no such size. Try 3'
    """
    text = " ".join(str(error).split()).rstrip(".")
    if len(text) > _REASON_LENGTH:
        text = text[:_REASON_LENGTH].rsplit(" ", 1)[0] + " ..."
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def first_few(listed: Sequence[str], count: int = 3) -> str:
    """Show the first few of a list.

    Examples
    --------
    >>> first_few(["a", "b", "c", "d"])
    'a, b, c, ...'
    """
    return ", ".join(map(brief, listed[:count])) + (", ..." if len(listed) > count else "")


def brief(text: str, most: int = 120) -> str:
    r"""A name that a file tells, cut and without characters that break a line.

    Examples
    --------
    >>> brief("a\n" * 3), brief("a" * 99, most=12)
    ('a\\na\\na\\n', 'aaaaaaaaa...')
    """
    plain = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[: most + 1])
    return plain if len(plain) <= most else plain[: most - 3] + "..."


def suggestion(name: str, known: Iterable[str], prefix: str = "") -> str:
    """Name what a person may have meant, or else what there is.

    Examples
    --------
    >>> suggestion("unett", ["Unet", "FPN"], "smp:")
    'did you mean smp:Unet?'
    >>> suggestion("abc", ["Unet", "FPN"])
    'there are FPN, Unet.'
    """
    known = list(known)
    near = nearest(name, known)
    if near:
        return f"did you mean {prefix}{near[0]}?"
    if not known:
        return "there is nothing to choose from."
    return f"there are {first_few(sorted(known), 12)}."


def nearest(name: str, known: Iterable[str], *, count: int = 1, cutoff: float = 0.6) -> list[str]:
    """The known names that are nearest to one, whatever its capitals, hyphens and underscores.

    Parameters
    ----------
    name : str
    known : iterable of str
    count : int
        How many at most, the nearest first.
    cutoff : float
        How alike they are at least, from 0 to 1.

    Examples
    --------
    >>> nearest("Grad_CAM", ["gradcam", "layercam", "rise"])
    ['gradcam']
    """

    def plain(text: str) -> str:
        return text.lower().replace("-", "").replace("_", "")

    by_plain: dict[str, str] = {}
    for candidate in known:
        by_plain.setdefault(plain(candidate), candidate)
    near = difflib.get_close_matches(plain(name), by_plain, n=count, cutoff=cutoff)
    return [by_plain[match] for match in near]
