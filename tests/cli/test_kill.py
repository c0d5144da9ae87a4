"""A real process, really killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.runs.factory import CLASSES, write_data, write_network
from unetcam.cli import main

ROOT = Path(__file__).parents[2]


def started(arguments: list[str], run: Path) -> subprocess.Popen[str]:
    """A process that has written the first part of its run."""
    process = subprocess.Popen(
        [sys.executable, "-m", "unetcam", *arguments],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Tests that run in the background are born deaf to Ctrl-C, and so were their children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while not list(run.glob("parts/*.parquet")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return process


@pytest.mark.usefixtures("plain_page")
@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_report_goes_on_and_ends_with_the_same_rows(
    tmp_path: Path, how: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    write_data(tmp_path, 120, lambda i: [(24, 20), (17, 33), (20, 24)][i % 3])
    model = write_network(tmp_path)

    def command(out: Path) -> list[str]:
        return [
            "report", model, "--images", str(tmp_path / "images"), "--masks",
            str(tmp_path / "masks"), "--classes", CLASSES, "--out", str(out),
            "--device", "cpu", "--workers", "1", "--batch-size", "2",
        ]  # fmt: skip

    run, straight = tmp_path / "run", tmp_path / "straight"
    process = started(command(run), run)
    if how == signal.SIGINT:  # as a terminal does: to the process and its workers
        os.killpg(process.pid, how)
    else:
        process.kill()
    _, err = process.communicate(timeout=60)
    if how == signal.SIGINT:
        assert process.returncode == 130
        assert "Start the same command again" in err
        assert "Traceback" not in err
    else:
        assert process.returncode == -signal.SIGKILL
    assert json.loads((run / "run.json").read_text())["status"] == "running"
    assert not (run / "rows.parquet").exists()

    assert main(command(run)) == 0
    assert "goes on after" in capsys.readouterr().err
    assert main(command(straight)) == 0
    assert (run / "rows.parquet").read_bytes() == (straight / "rows.parquet").read_bytes()
    assert (run / "summary.csv").read_bytes() == (straight / "summary.csv").read_bytes()
    assert json.loads((run / "run.json").read_text())["resumed"] == 1
