"""The command line: one thin file per command.

Nothing heavy is imported here, so that ``unetcam --help`` answers at once; each command imports
what it needs when it runs.
"""

from __future__ import annotations

import sys
import traceback
import warnings
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Annotated

import typer

from unetcam._version import __version__
from unetcam.cli import check, compare, demo, diagnose, layers, map, methods, report
from unetcam.cli.console import complain, one_line
from unetcam.errors import UnetcamError, as_flags

app = typer.Typer(
    name="unetcam",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Begin with `unetcam demo`: it explains a small network that comes along.",
)
app.command(name="report", epilog=report.EPILOG)(report.report)
app.command(name="diagnose", epilog=diagnose.EPILOG)(diagnose.diagnose)
app.command(name="layers", epilog=layers.EPILOG)(layers.layers)
app.command(name="map", epilog=map.EPILOG)(map.map_images)
app.command(name="check", epilog=check.EPILOG)(check.check)
app.command(name="compare", epilog=compare.EPILOG)(compare.compare)
app.command(name="demo", epilog=demo.EPILOG)(demo.demo)
app.command(name="methods")(methods.methods)


#: Whether a mistake is shown with its cause and where it was noticed.
_debug: ContextVar[bool] = ContextVar("debug", default=False)


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    """A warning as the line that it is: where in the code it was raised is no user's business."""
    text = as_flags(str(message), ("key", "partial", "output"))
    print(f"unetcam: {one_line(text)}", file=sys.stderr)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"unetcam {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Say the version."),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show where in the code a mistake was noticed, and why.")
    ] = False,
) -> None:
    """Where does a segmentation network look, class by class and layer by layer?"""
    _debug.set(debug)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments : sequence of str, optional
        What follows ``unetcam``; the process's arguments by default.

    Returns
    -------
    int
        0; 2 after a mistake that a person can mend, told in one sentence on stderr; 3 where
        `diagnose` has a finding that was not to be; 130 after Ctrl-C.
    """
    _debug.set(False)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # file names may hold what the terminal can't write
            stream.reconfigure(errors="backslashreplace")
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            # Libraries' notes to their developers are nothing that a user could act on.
            warnings.filterwarnings("ignore", r"`torch\.jit", FutureWarning)
            code = app(
                args=None if arguments is None else list(arguments),
                prog_name="unetcam",
                standalone_mode=False,
            )
    except UnetcamError as error:
        if _debug.get():
            traceback.print_exception(error)
        return complain(error.as_flags())
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        where = f" '{error.filename}'" if error.filename else ""
        return complain(f"{error.strerror or error}{where}: check the path and the space on disk.")
    except Exception as error:
        # Typer carries its own copy of Click, or uses the installed one: known by what they can
        format_message = getattr(error, "format_message", None)
        if format_message is None:
            raise
        return _usage(error, one_line(str(format_message())))
    return code if isinstance(code, int) else 0


def _usage(error: Exception, message: str) -> int:
    context = getattr(error, "ctx", None)
    path = getattr(context, "command_path", "unetcam")
    if type(error).__name__ == "NoArgsIsHelpError":
        print(message)
        return 2
    return complain(f"{message.rstrip('.')} (see `{path} --help`).")
