"""The whole report run of the demo, and where its time goes.

Run as a script it makes the report once, in its own process, with a timer around each room.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmark_timing import Setting, goal, seconds, table

CAM = "forwards and backwards"
STARTING = "starting Python and importing"
REST = "everything else"
_QUICK_SLICES = 1


def measure_demo(setting: Setting) -> dict[str, Any]:
    """Run the demo in processes of its own; of two the slower is shown."""
    runs = []
    for number in range(1 if setting.quick else setting.rounds(2)):
        setting.say(f"demo: run {number + 1}")
        with tempfile.TemporaryDirectory() as folder:
            asked = {"out": folder, "device": setting.device, "quick": setting.quick}
            start = time.perf_counter()
            script = Path(__file__).resolve()
            done = subprocess.run(
                [sys.executable, str(script), json.dumps(asked)],
                capture_output=True,
                text=True,
                check=False,
            )
            whole = time.perf_counter() - start
        if done.returncode:
            raise RuntimeError(f"The demo failed:\n{done.stderr}")
        told = json.loads(done.stdout.splitlines()[-1])
        # What the child did after its report, to measure the calls alone, is no part of it.
        told["wall"] = whole - told.pop("afterwards")
        told["rooms"][STARTING] = told["wall"] - told["inside"]
        runs.append(told)
    runs.sort(key=lambda one: one["wall"])
    shown = runs[len(runs) // 2]
    return {
        **shown,
        "walls": [one["wall"] for one in runs],
        "ratio": shown["wall"] / shown["alone"],
        "ratio_started": shown["inside"] / shown["alone"],
    }


def show_demo(found: Mapping[str, Any], images: Path) -> str:
    """The wall time against the calls alone, and the profile."""
    rooms = sorted(found["rooms"].items(), key=lambda row: -row[1])
    rows = [[name, seconds(t), f"{100 * t / found['wall']:.0f} %"] for name, t in rooms]
    rows.append(["**whole**", seconds(found["wall"]), "100 %"])
    return (
        f"`unetcam demo` on {found['images']} slices, {found['workers']} reading process(es) "
        f"besides its own: {seconds(found['wall'])} from start to end "
        f"(runs: {', '.join(seconds(one) for one in found['walls'])}). Its {found['calls']} calls "
        "of UNetCAM, repeated afterwards with nothing beside them, take "
        f"{seconds(found['alone'])}: the run takes {found['ratio']:.2f} times that, and "
        f"{found['ratio_started']:.2f} times without starting Python and importing the first "
        f"packages ({goal(found['ratio'], 1.5, most=True)}).\n\n"
        "The rooms' own time, without that of the rooms they call; reading is the time that the "
        "run waits for it.\n\n" + table(["room", "time", "share"], rows)
    )


# -- in the process that makes the report ----------------------------------------------------


class Rooms:
    """Timers that stop while one inside them runs."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._open: list[str] = []
        self._since = time.perf_counter()

    def _turn(self) -> None:
        now = time.perf_counter()
        room = self._open[-1] if self._open else REST
        self.seconds[room] = self.seconds.get(room, 0.0) + now - self._since
        self._since = now

    @contextmanager
    def inside(self, room: str) -> Iterator[None]:
        """Time spent here belongs to the room."""
        self._turn()
        self._open.append(room)
        try:
            yield
        finally:
            self._turn()
            self._open.pop()

    def around(self, function: Callable[..., Any], room: str) -> Callable[..., Any]:
        """The same function, timed."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.inside(room):
                return function(*args, **kwargs)

        return timed

    def around_steps(self, function: Callable[..., Any], room: str) -> Callable[..., Any]:
        """The same generator, each of its steps timed."""

        def steps(*args: Any, **kwargs: Any) -> Iterator[Any]:
            generator = function(*args, **kwargs)
            try:
                while True:
                    with self.inside(room):
                        try:
                            value = next(generator)
                        except StopIteration:
                            return
                    yield value
            finally:
                generator.close()

        return steps


def run_timed(out: Path, device: str, quick: bool) -> dict[str, Any]:
    """Make the demo's report with a timer around each room."""
    rooms = Rooms()
    began = time.perf_counter()
    with rooms.inside(STARTING):
        from unetcam.cam import UNetCAM
        from unetcam.cli.values import choose_workers
        from unetcam.page import html
        from unetcam.runs import chunk, loop, run, store
        from unetcam.tasks import demo, report
    imported = time.perf_counter()
    calls: list[Callable[[], Any]] = []
    kept_call, kept_data = UNetCAM.__call__, demo.write_demo_data

    def call(cam: UNetCAM, *args: Any, **kwargs: Any) -> Any:
        calls.append(lambda: kept_call(cam, *args, **kwargs))
        with rooms.inside(CAM):
            return kept_call(cam, *args, **kwargs)

    def few_slices(folder: Path) -> None:
        kept_data(folder)
        for kind in ("images", "masks"):
            for path in sorted((folder / kind).iterdir())[_QUICK_SLICES:]:
                path.unlink()

    places = (
        (report, "prepare", "finding data, loading and tracing the network"),
        # A thread of its own measures a batch while the next one is explained.
        (chunk.Chunk, "_finish", "waiting for the measures"),
        (store.RunStore, "append", "writing rows"),
        (store.RunStore, "finish", "writing rows"),
        (store.RunStore, "write_summary", "writing rows"),
        (run, "summarise", "summary with its intervals"),
        (report, "examine_run", "diagnosis"),
        (report, "check_run", "check of the maps"),
        (report, "explain_pictures", "pictures"),
        (html, "write_figures", "figures"),
        (report, "write_report", "page"),
    )
    workers = 0 if quick else choose_workers(None)
    with ExitStack() as patches:
        for place, name, room in places:
            timed = rooms.around(getattr(place, name), room)
            patches.enter_context(patch.object(place, name, timed))
        reading = rooms.around_steps(loop.read_ahead, "waiting for images")
        patches.enter_context(patch.object(loop, "read_ahead", reading))
        patches.enter_context(patch.object(UNetCAM, "__call__", call))
        slices = rooms.around(few_slices if quick else kept_data, "making the demo's slices")
        patches.enter_context(patch.object(demo, "write_demo_data", slices))
        outcome = demo.run_demo(out / "report", device=device, workers=workers)
        with rooms.inside(REST):
            ended = time.perf_counter()
    rooms.seconds.pop(STARTING)
    alone = _seconds(calls, device)
    return {
        "rooms": rooms.seconds,
        "inside": ended - imported,
        "imports": imported - began,
        "alone": alone,
        "calls": len(calls),
        "images": outcome.run.meta["counts"]["explained"],
        "workers": workers,
        "afterwards": time.perf_counter() - ended,
    }


def _seconds(calls: list[Callable[[], Any]], device: str) -> float:
    import torch

    start = time.perf_counter()
    for call in calls:
        call()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


if __name__ == "__main__":
    request = json.loads(sys.argv[1])
    told = run_timed(Path(request["out"]), request["device"], request["quick"])
    print(json.dumps(told))
