"""Which versions a result rests on."""

from __future__ import annotations

from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from platform import python_version

from unetcam._version import __version__

_LIBRARIES = (
    "torch",
    "torchvision",
    "segmentation-models-pytorch",
    "albumentations",
    "numpy",
    "scipy",
    "pandas",
    "pyarrow",
)


def versions() -> dict[str, str]:
    """Versions of this package, of Python and of the libraries that a result rests on."""
    found = {"unetcam": __version__, "python": python_version()}
    for library in _LIBRARIES:
        with suppress(PackageNotFoundError):
            found[library] = version(library)
    return found
