"""Two runs compared, by their folders or as they were returned."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from unetcam.errors import RunError
from unetcam.runs import Comparison, Run
from unetcam.runs import compare as compared
from unetcam.runs.files import write_text


def compare(
    a: Run | str | os.PathLike[str],
    b: Run | str | os.PathLike[str],
    metrics: Sequence[str] | None = None,
    *,
    out: str | os.PathLike[str] | None = None,
    force: bool = False,
) -> Comparison:
    """Compare two runs over the same images, as ``unetcam compare`` does.

    Parameters
    ----------
    a, b : Run or path
        Finished runs, or their folders.
    metrics : sequence of str, optional
        Columns of the rows; the main ones by default.
    out : path, optional
        Write the table into this Markdown file.
    force : bool
        Replace the file if it is there.

    Returns
    -------
    Comparison

    Raises
    ------
    RunError
        If a run can't be read, the runs share nothing, or the file is there already.
    """
    if out is not None and Path(out).exists() and not force:
        raise RunError(
            f"'{out}' is there already: name another file, or add force=True to replace it.",
            option="force",
        )
    first, second = (one if isinstance(one, Run) else Run.load(one) for one in (a, b))
    comparison = compared(first, second, metrics)
    if out is not None:
        write_text(Path(out), comparison.markdown())
    return comparison
