"""A diagnosis of a run: on a sample of its images, kept with its evidence, not made twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import unetcam
import unetcam.tasks.diagnose as task
from tests.runs.factory import CLASSES, write_data, write_network
from unetcam.cli import main
from unetcam.errors import RunError
from unetcam.runs import Run
from unetcam.tasks.diagnose import MOST_IMAGES, Limit, sample

NAMES = ["ground", "cell"]
pytestmark = pytest.mark.usefixtures("plain_page")


class Blind(nn.Module):
    """Sees bright squares; of dead ones it never says the second class."""

    def __init__(self, dead: bool = False) -> None:
        super().__init__()
        self.enc, self.up = nn.Conv2d(1, 2, 3, 2, 1), nn.Conv2d(2, 2, 3, padding=1)
        self.head = nn.Conv2d(3, 2, 1)
        self.sign = -1.0 if dead else 1.0

    def forward(self, x: Tensor) -> Tensor:
        up = nn.functional.interpolate(self.enc(x).relu(), scale_factor=2)
        features = torch.cat([0 * self.up(up), x], dim=1)
        weight = torch.zeros(2, 3, 1, 1)
        weight[1, 2] = 8.0
        bias = torch.tensor([4.0, 0.0 if self.sign > 0 else -90.0])
        return self.head(features) * 0 + nn.functional.conv2d(features, weight, bias)


def scenes(count: int = 6, size: int = 32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = 0.2 * torch.rand(count, 1, size, size, generator=generator)
    masks = torch.zeros(count, size, size, dtype=torch.long)
    for number in range(count):
        top = 4 + number % 8
        masks[number, top : top + 12, 8:20] = 1
    return images + 0.7 * masks[:, None], masks


def report(model: nn.Module, out: Path, data: Any = None, **options: Any) -> Run:
    torch.manual_seed(0)
    return unetcam.report(
        model, scenes() if data is None else data, out=out, classes=NAMES, layers=["up"], **options
    )


def test_a_fault_is_found_and_kept_with_its_evidence(tmp_path: Path) -> None:
    run = report(Blind(dead=True), tmp_path / "run")
    assert ("never-predicted", "cell") in [(one.kind, one.class_name) for one in run.findings]
    again = Run.load(tmp_path / "run")
    assert again.diagnosis == run.diagnosis
    for ours, theirs in zip(run.findings, again.findings, strict=True):
        assert len(ours.evidence) == len(theirs.evidence)
        for one, other in zip(ours.evidence, theirs.evidence, strict=True):
            assert (one.image, one.caption) == (other.image, other.caption)
            for name in ("before", "after", "truth", "mask_before", "mask_after", "region"):
                np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert any(one.evidence for one in run.findings)
    files = json.loads((tmp_path / "run" / "run.json").read_text())["files"]
    assert {"findings.json", "findings.npz"} <= set(files)


def test_a_healthy_network_has_no_finding_and_says_what_was_tested(tmp_path: Path) -> None:
    run = report(Blind(), tmp_path / "run")
    assert run.findings == ()
    assert run.diagnosis is not None
    assert any(one.tested for one in run.diagnosis.tests)
    assert run.undiagnosed == ""


def test_it_is_not_made_twice_and_made_anew_where_it_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report(Blind(dead=True), tmp_path / "run")
    kept, calls = task.diagnose, []

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return kept(*args, **kwargs)

    monkeypatch.setattr(task, "diagnose", counted)
    report(Blind(dead=True), tmp_path / "run")
    assert calls == []
    for name in ("findings.json", "findings.npz"):
        for damage in (b"", b"no json", (tmp_path / "run" / name).read_bytes()[:-7]):
            (tmp_path / "run" / name).write_bytes(damage)
            assert Run.load(tmp_path / "run").diagnosis is None
            assert report(Blind(dead=True), tmp_path / "run").findings
    assert len(calls) == 6


def test_what_cannot_be_tested_says_why(tmp_path: Path) -> None:
    images, masks = scenes()
    one = report(Blind(), tmp_path / "one", (images[:1], masks[:1]))
    assert one.diagnosis is None
    assert "two images" in one.undiagnosed
    tiled = report(Blind(), tmp_path / "tiled", tile=[16], overlap=0)
    assert "tiles" in tiled.undiagnosed
    off = report(Blind(), tmp_path / "off", diagnose=False)
    assert "switched off" in off.undiagnosed
    assert not (tmp_path / "off" / "findings.json").exists()
    assert report(Blind(), tmp_path / "off").diagnosis is not None


def test_the_sample_is_spread_over_the_data_and_of_one_size(tmp_path: Path) -> None:
    from tests.runs.factory import plan

    ready = plan(tmp_path, 50, size=lambda i: (24, 20) if i % 5 else (17, 33))
    sampled = sample(ready)
    assert sampled is not None
    assert len(sampled.names) <= MOST_IMAGES
    assert sampled.images.shape[1:] == (3, 24, 20)
    assert sampled.truth.shape == (len(sampled.names), 24, 20)
    numbers = [int(name[2:]) for name in sampled.names]
    assert min(numbers) < 5
    assert max(numbers) > 44
    assert sample(ready, usable=["im01"]) is None


def test_a_build_fails_where_a_finding_is_not_tolerated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_data(tmp_path, 4)
    command = [
        "diagnose", write_network(tmp_path), "--images", str(tmp_path / "images"), "--masks",
        str(tmp_path / "masks"), "--classes", CLASSES, "--device", "cpu",
    ]  # fmt: skip
    assert main([*command, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    kinds = [one["kind"] for one in told["diagnosis"]["findings"]]
    assert kinds  # its weights are random
    assert main([*command, "--fail-on", kinds[0], "-q"]) == 3
    assert kinds[0] in capsys.readouterr().out
    assert main([*command, "--fail-on", f"{kinds[0]}:1e9", "-q"]) == 0
    assert main([*command, "--fail-on", "never-predcted"]) == 2
    assert "did you mean never-predicted" in capsys.readouterr().err
    assert main([*command, "--fail-on", "any:much"]) == 2
    assert "--fail-on any:much" in capsys.readouterr().err


def test_a_limit_knows_its_kind_and_its_effect() -> None:
    assert Limit.parse("any") == Limit("any", 0.0)
    with pytest.raises(RunError, match="did you mean"):
        Limit.parse("leans-on-surrounding")
