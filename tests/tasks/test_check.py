"""The sanity check as a whole: what must fail fails and says why, what follows weights passes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import unetcam
from tests.runs.factory import TinyUNet, write_data, write_network
from unetcam.cli import main
from unetcam.errors import DataError, UnetcamError
from unetcam.measures.sanity import COPIES, EDGES
from unetcam.runs.sanity import SAME_CLASS


class TwoCues(nn.Module):
    """Weighs two channels of the image; class 1 where the first is high, class 0 elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(2, 4, 1, bias=False)
        self.act = nn.ReLU()
        self.head = nn.Conv2d(4, 2, 1, bias=False)
        self.mix.weight.data = torch.tensor([[3.0, 0], [2, 0], [0, 0], [0, 0.1]])[..., None, None]
        self.head.weight.data = torch.tensor([[0.0, 0, 0, 5], [4, 3, 0, 0]])[..., None, None]

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.act(self.mix(x)))


def cues(count: int = 4) -> Tensor:
    """Images of two cues, alike in all of them but for a little noise: (count, 2, 24, 24)."""
    rows = torch.linspace(0, 1, 24)
    one = (rows[:, None] * rows).expand(count, 24, 24)
    other = ((1 - rows)[:, None] * rows.square()).expand(count, 24, 24)
    noise = torch.rand(count, 2, 24, 24, generator=torch.Generator().manual_seed(0))
    return torch.stack([one, other], dim=1) + 0.01 * noise


def tiny() -> TinyUNet:
    torch.manual_seed(2)
    return TinyUNet().eval()


def noise(count: int = 4) -> Tensor:
    return torch.rand(count, 3, 24, 20, generator=torch.Generator().manual_seed(0))


def test_maps_that_follow_the_weights_pass() -> None:
    found = unetcam.check(TwoCues(), cues(), methods=["gradcam"], layers=["act"], seed=3)
    rows = {row.target: row for row in found.rows}
    assert set(rows) == {"class", "predicted"}
    row = rows["class"]
    assert row.threshold.spearman > 0.95
    assert row.cascade[-1][1].below(row.threshold)
    assert row.other_class.below(row.threshold)
    assert row.passed
    assert "passed" in row.sentence()


def test_edges_of_the_image_fail_and_are_named() -> None:
    found = unetcam.check(tiny(), noise(), methods=["edges"])
    assert len(found.rows) == 4  # two targets at two layers
    for row in found.rows:
        if row.target == "class":
            assert row.reasons == (EDGES, SAME_CLASS)
            assert [step for step, _ in row.cascade][-1] == "all weights"
            assert all(one.spearman == pytest.approx(1) for _, one in row.cascade)
            assert row.decoder is not None
            assert row.decoder.spearman == pytest.approx(1)
    assert found.failed
    assert "not the network's doing" in found.text()


def test_a_map_of_the_region_copies_the_mask() -> None:
    truth = torch.zeros(4, 24, 20, dtype=torch.long)
    for k in range(4):  # another place in each image, so that different images differ
        truth[k, 5 * k : 5 * k + 7, 4 * k : 4 * k + 6] = 1
        truth[k, 20 - 5 * k : 23 - 5 * k, 14 - 3 * k : 18 - 3 * k] = 2
    found = unetcam.check(tiny(), noise(), truth, methods=["mask-prior"])
    rows = [row for row in found.rows if row.target == "truth"]
    assert rows
    assert all(COPIES in row.reasons for row in rows)


def test_the_network_is_left_as_it_was() -> None:
    model, images = tiny(), noise(3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    one = unetcam.check(model, images, methods=["gradcam"], layers=["up2"])
    again = unetcam.check(model, images, methods=["gradcam"], layers=["up2"])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    assert [row.cascade for row in one.rows] == [row.cascade for row in again.rows]


def test_what_can_not_be_checked_is_refused() -> None:
    with pytest.raises(DataError, match="two or more"):
        unetcam.check(tiny(), noise(1))
    with pytest.raises(DataError, match="truth= has the shape"):
        unetcam.check(tiny(), noise(2), torch.zeros(2, 5, 5, dtype=torch.long))
    with pytest.raises(UnetcamError, match="'channels' is no method of"):
        unetcam.check(tiny(), noise(2), methods=["channels"])
    with pytest.raises(UnetcamError, match="did you mean"):
        unetcam.check(tiny(), noise(2), methods=["gradcm"])


def test_the_command_checks_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_data(tmp_path, 3)
    arguments = [
        "check", write_network(tmp_path), "--images", str(tmp_path / "images"),
        "--masks", str(tmp_path / "masks"), "--classes", "background,cell,border",
        "--layers", "up2", "--device", "cpu", "--methods", "edges", "--json",
    ]  # fmt: skip
    assert main(arguments) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["images"] == 3
    assert {row["target"] for row in told["rows"]} == {"class", "predicted", "truth"}
    assert all(row["layer"] == "up2" for row in told["rows"])
    assert any(not row["passed"] for row in told["rows"])


def test_targets_and_steps_can_be_chosen() -> None:
    found = unetcam.check(
        tiny(), noise(3), methods=["edges"], targets=["class"], layers=["up2"], steps=1
    )
    (row,) = found.rows
    assert row.target == "class"
    assert [step for step, _ in row.cascade] == ["all weights"]
    with pytest.raises(UnetcamError, match="no target 'truth', as there is no truth"):
        unetcam.check(tiny(), noise(3), targets=["truth"])
    with pytest.raises(UnetcamError, match="no target 'clas': did you mean class"):
        unetcam.check(tiny(), noise(3), targets=["clas"])


def test_a_report_checks_what_it_shows_and_marks_a_fail(tmp_path: Path) -> None:
    """ "edges" looks at no weight at all."""
    write_data(tmp_path, 5)
    options = {
        "classes": ["background", "cell", "border"], "device": "cpu", "layers": ["up2"],
        "method": "edges", "diagnose": False, "out": tmp_path / "run",
    }  # fmt: skip
    data = (str(tmp_path / "images"), str(tmp_path / "masks"))
    run = unetcam.report(write_network(tmp_path), data, **options)
    assert run.checked.check is not None
    (row,) = run.checked.check.rows
    assert (row.method, row.target, row.layer) == ("edges", "class", "up2")
    assert EDGES in row.reasons
    page = run.page.read_text(encoding="utf-8")
    assert 'class="badge"' in page
    assert EDGES.replace("'", "&#39;") in page
    again = unetcam.report(write_network(tmp_path), data, **options)
    assert again.checked.check.seconds == run.checked.check.seconds  # read, and not made anew


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"check": False}, "switched off"),
        ({"target": "false-positives"}, "can't be checked"),
        ({"method": "rise"}, "unetcam check --methods rise"),
    ],
)
def test_what_is_not_checked_says_why(
    tmp_path: Path, options: dict[str, object], reason: str
) -> None:
    write_data(tmp_path, 2)
    run = unetcam.report(
        write_network(tmp_path), (str(tmp_path / "images"), str(tmp_path / "masks")),
        classes=["background", "cell", "border"], device="cpu", layers=["up2"], diagnose=False,
        out=tmp_path / "run", **options,
    )  # fmt: skip
    assert run.checked.check is None
    assert reason in run.checked.reason
    assert 'class="badge"' not in run.page.read_text(encoding="utf-8")
