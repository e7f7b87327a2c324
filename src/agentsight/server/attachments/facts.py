"""What is known of a file's bytes beyond their size and hash, and its compact text. Pure.

The text stands in the blob's row and, copied, in every attachment's: the one call then reads one
range of one index. Columns of their own hold the same for whoever asks by them.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, Literal, TypeAlias

import msgspec

from agentsight.server.media.kinds import can_play, can_preview

Scan: TypeAlias = Literal["not_scanned", "clean", "infected", "failed"]
Preview: TypeAlias = Literal["image", "text"]
"""A thumbnail, or the first page of the text."""

PREVIEW_PATHS: Final[dict[Preview, str]] = {"image": "preview/512.webp", "text": "preview/text.txt"}
"""Where a row's `preview_url` leads, beside the file's name in its link."""


class Facts(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """What was learned of a blob; None where it is not known or has none.

    `width` and `height` are those of the picture as it is shown. `preview` and `playback` (the
    extension of the copy that browsers play) say what can be asked for, as far as is known: the
    type alone promises them until the bytes were examined.
    """

    detected_mime_type: str | None = None
    width: int | None = None
    height: int | None = None
    pages: int | None = None
    seconds: float | None = None
    scan: Scan = "not_scanned"
    preview: Preview | None = None
    playback: str | None = None


NO_FACTS: Final = Facts()
_DEFAULTS: Final = msgspec.structs.astuple(NO_FACTS)
_encoder: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder(Facts)


def encode_facts(facts: Facts) -> str:
    """Return the text that is kept; what says nothing at its end is left out."""
    values = list(msgspec.structs.astuple(facts))
    while values and values[-1] == _DEFAULTS[len(values) - 1]:
        values.pop()
    return _encoder.encode(values).decode()


@lru_cache(maxsize=4096)
def decode_facts(text: str | None) -> Facts:
    """Read the text that is kept; nothing is known where there is none.

    Kept in memory, since lists show the same files again, and many files have the same facts.
    """
    return NO_FACTS if text is None else _decoder.decode(text)


def first_facts(detected_mime_type: str | None) -> Facts:
    """Say what is known of bytes that have just come, and were not examined yet."""
    return Facts(
        detected_mime_type,
        preview=can_preview(detected_mime_type),
        playback=can_play(detected_mime_type),
    )
