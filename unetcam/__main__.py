"""``python -m unetcam``."""

from __future__ import annotations

import sys

from unetcam.cli import main

if __name__ == "__main__":
    sys.exit(main())
