"""The command line's flags are the fields of a spec, with the same defaults."""

from __future__ import annotations

import dataclasses
from enum import Enum

from unetcam.cli.options import SPEC
from unetcam.runs import Spec

#: What the run finds out by itself, what the argument MODEL and --classes say, and the tolerance
#: of the pointing game, which is set in Python alone.
NOT_FLAGS = {
    "model", "classes", "tolerance", "strides", "by_type", "stride", "dims", "model_digest",
    "data_digest", "samples",
}  # fmt: skip


def test_every_field_of_a_spec_that_a_person_may_set_is_a_flag() -> None:
    fields = {field.name for field in dataclasses.fields(Spec)}
    assert set(SPEC) == fields - NOT_FLAGS | {"ignore_index"}


def test_flags_and_keywords_have_the_same_defaults() -> None:
    plain = {
        name: default.value if isinstance(default, Enum) else default
        for name, (_, default) in SPEC.items()
    }
    assert Spec.of(**plain) == Spec()
