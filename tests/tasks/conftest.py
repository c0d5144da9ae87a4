from __future__ import annotations

from tests.cli.conftest import _one_thread as _one_thread
from tests.cli.conftest import plain_page as plain_page
