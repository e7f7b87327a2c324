"""What `make soak` runs at length, and `make test` shortly or not at all."""

from __future__ import annotations

import os
from typing import Final

import pytest

IS_SOAK: Final = bool(os.environ.get("AGENTSIGHT_TEST_SOAK"))
"""Whether `make soak` runs the tests: numbers of examples and sizes may be many times larger."""

only_in_soak: Final = pytest.mark.skipif(not IS_SOAK, reason="long: make soak")
"""Marks a test, or one of its parameters, that `make test` has no time for."""
