"""What a person sees while a command runs: progress on stderr, results on stdout."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from unetcam.errors import as_flags

if TYPE_CHECKING:
    from unetcam.data import Skipped

SHOWN_SKIPPED = 10


def one_line(text: str) -> str:
    """Text on one line, without characters that could steer a terminal.

    >>> one_line("a\\nb\\x1b[31m")
    'a b\\\\x1b[31m'
    """
    joined = " ".join(text.split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in joined)


def complain(message: str) -> int:
    """Say what was wrong, in one sentence on stderr; gives the exit code."""
    sentence = one_line(message)
    if sentence[-1:] not in (".", "?", "!"):
        sentence += "."
    print(f"unetcam: {sentence}", file=sys.stderr)
    return 2


def print_json(value: Mapping[str, Any]) -> None:
    """Print one JSON object on stdout."""
    print(json.dumps(value, indent=2, ensure_ascii=True, allow_nan=False))


@contextmanager
def interruptible(hint: str) -> Iterator[None]:
    """Answer Ctrl-C with a hint and exit code 130."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"unetcam: stopped. {hint}", file=sys.stderr)
        raise typer.Exit(130) from None


class RichProgress:
    """A progress bar on stderr; silent when told to be."""

    def __init__(self, quiet: bool) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            Progress,
            SpinnerColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self._quiet = quiet
        self._console = Console(stderr=True, markup=False, highlight=False, emoji=False)
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[count]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=quiet or not self._console.is_terminal,
            transient=True,
        )
        self._task: Any = None
        self._skipped = self._done = self._total = 0

    def __enter__(self) -> RichProgress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
        hidden = self._skipped - SHOWN_SKIPPED
        if hidden > 0:
            self._say(f"... and {hidden} more were skipped: skipped.csv names them all.")

    def step(self, text: str) -> None:
        """A step without a known length begins."""
        self._close()
        self._done = self._total = 0
        self._task = self._bar.add_task(text, total=None, count="")

    def begin(self, total: int, done: int) -> None:
        """The images are about to be explained."""
        self._close()
        self._done, self._total = done, total
        self._task = self._bar.add_task(
            "explaining images", total=total, completed=done, count=f"{done}/{total}"
        )

    def advance(self, images: int) -> None:
        """So many images more are done."""
        if self._task is not None:
            self._done += images
            self._bar.update(self._task, completed=self._done, count=f"{self._done}/{self._total}")

    def within(self, done: int, total: int) -> None:
        """Of the image at work so many tiles of so many are done, or so many parts of a step."""
        if self._task is not None and not self._total:
            self._bar.update(self._task, total=total, completed=done, count=f"{done}/{total}")
        elif self._task is not None:
            self._bar.update(self._task, completed=self._done + done / total)

    def skipped(self, one: Skipped) -> None:
        """An image could not be used; the first few are named."""
        self._skipped += 1
        if self._skipped <= SHOWN_SKIPPED:
            self._say(f"skipped {one.id}: {as_flags(one.reason, one.options)}")

    def note(self, text: str) -> None:
        """Something that a person should know."""
        self._say(text)

    def _close(self) -> None:
        if self._task is not None:
            self._bar.remove_task(self._task)
            self._task = None

    def _say(self, text: str) -> None:
        if not self._quiet:
            self._console.print(one_line(text), soft_wrap=True)
