"""Who is told how a run goes on."""

from __future__ import annotations

from typing import Protocol

from unetcam.data import Skipped


class Progress(Protocol):
    """Somebody who is told how a run goes on."""

    def step(self, text: str) -> None:
        """A step of unknown length begins."""

    def begin(self, total: int, done: int) -> None:
        """`total` images are to be explained, `done` of them were before."""

    def advance(self, images: int) -> None:
        """So many images more are done, explained or skipped."""

    def within(self, done: int, total: int) -> None:
        """Of the image at work so many tiles of so many are done, or so many parts of a step."""

    def skipped(self, one: Skipped) -> None:
        """An image could not be used."""

    def note(self, text: str) -> None:
        """Something that a person should know."""


class Silent:
    """A progress that says nothing."""

    def step(self, text: str) -> None:
        """Say nothing."""

    def begin(self, total: int, done: int) -> None:
        """Say nothing."""

    def advance(self, images: int) -> None:
        """Say nothing."""

    def within(self, done: int, total: int) -> None:
        """Say nothing."""

    def skipped(self, one: Skipped) -> None:
        """Say nothing."""

    def note(self, text: str) -> None:
        """Say nothing."""
