"""HEIC and HEIF for Pillow, by pillow-heif: loaded for such pictures alone."""

# pillow-heif leaves its arguments without types.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import pillow_heif


def register() -> None:
    """Let Pillow open them; with no threads, which would take up address space."""
    pillow_heif.options.DECODE_THREADS = 1
    pillow_heif.register_heif_opener()
