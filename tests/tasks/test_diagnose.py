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
from unetcam.diagnosis import kinds, names
from unetcam.errors import RunError
from unetcam.runs import Run, Silent
from unetcam.runs.findings import read_examined
from unetcam.tasks.diagnose import Limit
from unetcam.tasks.sampling import MOST_IMAGES, _fullest, sample

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


def test_a_sound_network_has_no_finding_of_weight_and_says_what_was_tested(tmp_path: Path) -> None:
    run = report(Blind(), tmp_path / "run")
    # It multiplies its path by zero, which is told, and costs nothing.
    assert [(one.kind, one.severity) for one in run.findings] == [("stage-unused", "low")]
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


def test_images_of_many_sizes_are_cut_to_what_fits_into_all(tmp_path: Path) -> None:
    from tests.runs.factory import plan

    ready = plan(tmp_path, 12, size=lambda i: (24 + 2 * i, 40 - 2 * i))
    sampled = sample(ready)
    assert sampled is not None
    assert len(sampled.names) == 12
    stride = ready.network.stride
    assert sampled.truth.shape == (12, 24, -(-18 // stride) * stride)  # padded to whole strides
    assert sampled.images.shape[2:] == sampled.truth.shape[1:]
    assert all("(" in name for name in sampled.names)


def test_a_part_is_cut_where_most_of_the_rare_classes_is() -> None:
    truth = torch.zeros(40, 60, dtype=torch.long)
    truth[22:30, 44:52] = 1
    truth[0:4, 0:4] = 2
    assert _fullest(truth, (20, 20)) == [10, 40]
    ignored = truth.clone()
    ignored[truth == 1] = -1
    assert _fullest(ignored, (20, 20)) == [0, 0]
    volume = torch.zeros(8, 16, 16, dtype=torch.long)
    volume[6:, 12:, :3] = 1
    assert _fullest(volume, (4, 8, 8)) == [4, 8, 0]


def test_tiled_runs_are_tested_on_a_tile_of_each_image(tmp_path: Path) -> None:
    run = report(Blind(dead=True), tmp_path / "run", tile=[16], overlap=0)
    assert run.undiagnosed == ""
    assert ("never-predicted", "cell") in [(one.kind, one.class_name) for one in run.findings]
    assert run.examined is not None
    assert len(run.examined.images) == 6
    assert all(":" in name for name in run.examined.images)
    shown = run.findings[0].evidence[0]
    assert shown.before is not None
    assert shown.before.shape == (16, 16, 3)


class Volumes(nn.Module):
    """Sees bright blocks of a volume, and of a deaf one never any."""

    def __init__(self, *, deaf: bool) -> None:
        super().__init__()
        self.enc, self.up = nn.Conv3d(1, 2, 3, 2, 1), nn.Conv3d(2, 2, 3, padding=1)
        self.head = nn.Conv3d(3, 2, 1)
        self.deaf = deaf

    def forward(self, x: Tensor) -> Tensor:
        up = self.up(nn.functional.interpolate(self.enc(x).relu(), scale_factor=2))
        logits: Tensor = 1e-3 * self.head(torch.cat([up, x], dim=1))
        bright = x[:, 0] - (9.0 if self.deaf else 0.5)
        return logits + torch.stack([-bright, bright], dim=1)


@pytest.mark.parametrize("deaf", [True, False])
def test_volumes_are_tested_like_images(tmp_path: Path, deaf: bool) -> None:
    volumes = 0.2 * torch.rand(4, 1, 8, 16, 16, generator=torch.Generator().manual_seed(0))
    masks = torch.zeros(4, 8, 16, 16, dtype=torch.long)
    masks[:, 2:6, 4:12, 4:12] = 1
    torch.manual_seed(0)
    model = Volumes(deaf=deaf)
    run = report(model, tmp_path / "run", (volumes + 0.7 * masks[:, None], masks))
    assert run.diagnosis is not None
    kinds = {one.kind for one in run.findings if one.severity != "low"}
    assert kinds == ({"never-predicted"} if deaf else set())
    asked = {one.kind for one in run.diagnosis.tests if one.tested}
    assert {"leans-on-surroundings", "leans-on-appearance"} <= asked or deaf


def test_a_report_that_was_killed_goes_on_with_the_kinds_that_were_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = report(Blind(), tmp_path / "whole")
    out = tmp_path / "run"
    kept = task.write_examined
    times = 0

    def killed(*args: Any, **kwargs: Any) -> None:
        nonlocal times
        kept(*args, **kwargs)
        times += 1
        if times == 12:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(task, "write_examined", killed)
        with pytest.raises(KeyboardInterrupt):
            report(Blind(), out)
    # The twelfth was being written when it was killed: eleven are in their places.
    so_far = read_examined(
        out, json.loads((out / "run.json").read_text())["fingerprint"], unfinished=True
    )
    assert so_far is not None
    assert so_far.diagnosis is not None
    through = {one.kind for one in so_far.diagnosis.tests}
    asked: list[str] = []
    for kind in kinds():
        screen = kind.screen
        monkeypatch.setattr(
            kind,
            "screen",
            lambda exam, kind=kind, screen=screen: asked.append(kind.name) or screen(exam),
        )
    run = report(Blind(), out)
    assert set(asked) == set(names()) - through
    assert len(through) == 11
    assert run.findings == whole.findings
    assert run.diagnosis is not None
    assert whole.diagnosis is not None
    assert len(run.diagnosis.tests) == len(whole.diagnosis.tests)
    files = json.loads((out / "run.json").read_text())["files"]
    assert set(files) == set(json.loads((tmp_path / "whole" / "run.json").read_text())["files"])
    assert not [one.name for one in out.iterdir() if "so-far" in one.name]


def test_progress_moves_with_the_images_that_are_predicted(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []

    class Bar(Silent):
        def within(self, done: int, total: int) -> None:
            told.append((done, total))

    run = report(Blind(), tmp_path / "run", progress=Bar())
    assert run.diagnosis is not None
    assert told[-1] == (run.diagnosis.forwards, run.diagnosis.forwards)
    assert len({done for done, _ in told}) > 10


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
