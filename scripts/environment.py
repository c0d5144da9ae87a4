"""The virtual environment of this clone: made if there is none, and used again if there is."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"


def ready(extra: str) -> Path:
    """Install the package, editable, with an extra into ``.venv``; return its Python.

    Nothing is done where the same ``pyproject.toml`` was installed before.
    """
    if sys.version_info < (3, 10):  # noqa: UP036 - whichever Python started this
        sys.exit(f"unetcam needs Python 3.10 or later, and this is {sys.version.split()[0]}.")
    python = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    stamp = VENV / f"unetcam-{extra}.stamp"
    wanted = hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest()
    if python.exists() and stamp.exists() and stamp.read_text() == wanted:
        return python
    print(f"Setting up {VENV.name} (the first time takes a few minutes) ...", flush=True)
    if not python.exists():
        venv.create(VENV, with_pip=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run([*pip, "--editable", f"{ROOT}[{extra}]"])
    if done.returncode:
        sys.exit("The packages could not be installed: see what pip says above.")
    stamp.write_text(wanted)
    return python


def run(python: Path, *arguments: str, **variables: str) -> int:
    """Run a module of the environment in this clone; return its exit code."""
    command = [str(python), "-m", *arguments]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, **variables}).returncode
