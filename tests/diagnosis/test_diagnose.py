"""A diagnosis names the fault that a network has, and keeps quiet about one that has none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import unetcam
from tests.interventions.networks import SIZE, by_corner, by_itself, scenes
from unetcam.diagnosis import Diagnosis, diagnose, names
from unetcam.diagnosis.verdict import judge
from unetcam.errors import DataError, UnetcamError

CLASSES = ("background", "odd", "even")


def examined(network: Any, count: int = 8, **options: Any) -> Diagnosis:
    images, truth = scenes(count)
    return diagnose(network, images, truth, classes=CLASSES, **options)


def test_a_patch_that_decides_is_named_with_its_window_control_and_place() -> None:
    diagnosis = examined(by_corner)
    found = {one.class_name: one for one in diagnosis.of_kind("leans-on-surroundings")}
    finding = found["even"]
    assert (finding.kind, finding.class_name) == ("leans-on-surroundings", "even")
    assert finding.severity == "high"
    assert finding.effect == 1.0
    assert finding.control == 0.0
    assert finding.interval == (1.0, 1.0)
    assert finding.tested == 4
    assert set(finding.images) == {"image 1", "image 3", "image 5", "image 7"}
    assert finding.fills == ("mean", "noise", "other")
    assert "in the upper left of the image" in finding.claim
    assert finding.details["flips_far"] == 1.0
    assert finding.details["flips_near"] == 0.0
    for evidence in finding.evidence:
        assert evidence.before is not None
        assert evidence.after is not None
        assert evidence.region is not None
        assert evidence.region[2:8, 3:9].any()
        assert (evidence.before != evidence.after).any(axis=2)[evidence.region].any()
        assert not (evidence.before != evidence.after).any(axis=2)[~evidence.region].any()
        assert evidence.mask_before is not None
        assert evidence.mask_after is not None
        assert evidence.mask_before.sum() == 120
        assert evidence.mask_after.sum() == 0


def test_a_sound_network_has_no_finding_and_says_what_was_tested() -> None:
    images, truth = scenes(8)
    diagnosis = diagnose(by_itself, images, (truth > 0).long(), classes=["background", "square"])
    assert diagnosis.findings == ()
    assert {one.kind for one in diagnosis.tests} == set(names())
    (record,) = (
        one
        for one in diagnosis.tests
        if one.kind == "leans-on-surroundings" and one.class_index == 1
    )
    assert record.tested == 5  # nothing flips in the first of the sample, so the rest is left out
    assert record.effect == 0.0
    assert 0.15 <= record.smallest_effect <= 0.3
    assert all(one.reason.endswith(".") for one in diagnosis.tests)
    assert not any(one.confirmed for one in diagnosis.tests)


def test_a_class_that_never_comes_and_one_that_takes_it() -> None:
    def network(images: Tensor) -> Tensor:
        inside = images[:, 0] - 0.5
        return torch.stack((-inside, inside, inside - 1), dim=1)

    kinds = {(one.kind, one.class_name) for one in examined(network).findings}
    assert kinds == {("never-predicted", "even"), ("confused-with", "even")}


def test_the_same_call_gives_the_same_and_counts_its_forwards() -> None:
    count = 0

    def counting(images: Tensor) -> Tensor:
        nonlocal count
        count += len(images)
        return by_corner(images)

    told: list[tuple[int, int]] = []
    first = examined(counting, progress=lambda done, total: told.append((done, total)))
    assert first.forwards == count
    torch.manual_seed(5)
    again = examined(by_corner)
    without = {"seconds", "forwards"}
    one, other = first.to_dict(), again.to_dict()
    assert {k: v for k, v in one.items() if k not in without} == {
        k: v for k, v in other.items() if k not in without
    }
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert all(0 < done <= total for done, total in told)
    assert told[0][0] == 8  # the images as they are
    assert told[-1] == (count, count)
    assert len({done for done, _ in told}) > 10


def test_a_sound_network_is_asked_with_few_forwards() -> None:
    images, truth = scenes(24)
    diagnosis = diagnose(by_itself, images, (truth > 0).long(), classes=["background", "square"])
    # 24 as they are, 10 around the square, 4 moves and 6 changes of six images each.
    assert diagnosis.forwards == 24 + 10 + 24 + 36


class StoppedError(Exception):
    """The process was killed."""


def test_a_diagnosis_that_was_stopped_goes_on_with_the_kinds_that_were_through() -> None:
    whole = examined(by_corner)
    through: list[Diagnosis] = []

    def keep(so_far: Diagnosis) -> None:
        through.append(so_far)
        if len({one.kind for one in so_far.tests}) == 10:
            raise StoppedError

    with pytest.raises(StoppedError):
        examined(by_corner, keep=keep)
    earlier = Diagnosis.from_dict(through[-1].to_dict())
    assert earlier.findings
    resumed = examined(by_corner, earlier=earlier)
    assert resumed.findings == whole.findings
    assert {one.to_dict()["reason"] for one in resumed.tests} == {one.reason for one in whole.tests}
    assert len(resumed.tests) == len(whole.tests)
    # The images as they are are predicted again, and what is through is not.
    assert whole.forwards < resumed.forwards <= whole.forwards + 8 + 30
    again = examined(by_corner, earlier=whole)
    assert again.forwards == whole.forwards + 8
    assert again.findings == whole.findings


def test_only_what_is_asked_is_asked() -> None:
    diagnosis = examined(by_corner, kinds=["never-predicted"])
    assert {one.kind for one in diagnosis.tests} == {"never-predicted"}
    assert diagnosis.forwards == 8


def test_lists_of_arrays_are_taken() -> None:
    images, truth = scenes(4)
    arrays = diagnose(by_corner, list(images.numpy()), list(truth.numpy()), classes=CLASSES)
    tensors = diagnose(by_corner, images, truth, classes=CLASSES)
    assert arrays.to_dict()["findings"] == tensors.to_dict()["findings"]


def test_it_is_there_after_import_unetcam() -> None:
    assert unetcam.diagnose is diagnose


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"classes": ["a", "b"]}, DataError, "2 names of classes, but the network has 3"),
        ({"names": ["a"]}, DataError, "1 names for 4 images"),
        ({"kinds": ["leans-on-surrounding"]}, UnetcamError, "did you mean leans-on-surroundings"),
        ({"fills": ["mean"]}, UnetcamError, "two of different kind"),
        ({"images": torch.zeros(4, 2, *SIZE, dtype=torch.uint8)}, DataError, "floating point"),
        ({"images": [torch.zeros(2, 8, 8), torch.zeros(2, 8, 9)]}, DataError, "of 2 sizes"),
        ({"images": []}, DataError, "There are no images"),
        ({"truth": torch.zeros(3, *SIZE)}, DataError, "does not fit"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_sentence(
    change: dict[str, Any], error: type[Exception], message: str
) -> None:
    images, truth = scenes(4)
    given = {"images": images, "truth": truth, "classes": CLASSES, **change}
    with pytest.raises(error, match=message) as raised:
        diagnose(by_corner, **given)
    assert str(raised.value).endswith((".", "?"))


def test_a_verdict_needs_size_and_certainty() -> None:
    def verdict(effects: list[float], controls: list[float]) -> Any:
        return judge(torch.tensor(effects), torch.tensor(controls), limit=0.2, margin=0.05)

    assert verdict([0.5, 0.6, 0.7], [0.0, 0.0, 0.1]).confirmed
    assert not verdict([0.1, 0.1, 0.1], [0.0, 0.0, 0.0]).confirmed  # small
    assert not verdict([0.5, 0.6, 0.7], [0.5, 0.6, 0.7]).confirmed  # no more than its control
    assert not verdict([1.0, 0.0, 0.0, 0.0], [0.0] * 4).confirmed  # one image out of four
    assert not verdict([], []).confirmed
    nan = float("nan")
    assert verdict([0.5, nan, 0.7, 0.6], [nan, 0.0, nan, nan]).confirmed
    assert verdict([0.5, nan, 0.7, 0.6], [nan, 0.0, nan, nan]).tested == 3
    assert np.isnan(verdict([0.5, 0.5], [nan, nan]).control)


def test_more_images_see_smaller_effects() -> None:
    generator = torch.Generator().manual_seed(0)
    effects = torch.rand(64, generator=generator) * 0.8
    nothing = torch.zeros(64)
    few, many = (judge(effects[:n], nothing[:n], 0.0, 0.05) for n in (6, 64))
    assert many.smallest < few.smallest
