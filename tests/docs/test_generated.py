"""The generated parts of `docs/` are what the code says."""

from __future__ import annotations

import json

from tools.generate_docs import DOCS, main, public_api, stale_pages


def test_generated_pages_are_what_the_code_says() -> None:
    """Whoever changes a setting, a route or a public name runs `make docs` and sees the change."""
    assert stale_pages() == []
    assert main(["--check"]) == 0


def test_the_sdk_s_public_names_and_signatures_are_the_recorded_ones() -> None:
    """A name or an argument is added, changed or removed on purpose only."""
    recorded = json.loads((DOCS / "public-api.json").read_text(encoding="utf-8"))
    assert public_api() == recorded
