"""What is made of a file, and under which names it is asked for. Pure values and rules."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal, TypeAlias

from agentsight.server.attachments.facts import Facts
from agentsight.server.attachments.model import ServedRow
from agentsight.server.attachments.names import file_stem
from agentsight.server.ids import AgentId, BlobId
from agentsight.server.media.kinds import COMPOUND, SOUNDS, can_play, can_preview, has_text

THUMBNAIL_SIZES: Final = (128, 512, 1600)
"""The longest edge in pixels: a list, a card, a window. Fixed: nobody can ask for millions."""
ROW_SIZE: Final = 512
"""The thumbnail that rows link to, and whose failure says that a file has none."""
TEXT_PREVIEW_CHARS: Final = 20_000
TEXT_KIND: Final = "text"
PLAYBACK_KIND: Final = "playback"
_THUMBNAIL: Final = re.compile(r"preview/([1-9][0-9]{0,4})\.webp")
_TEXT: Final = "preview/text.txt"
_PLAYBACK: Final = "playback/"

TextState: TypeAlias = Literal["waiting", "stored", "none", "failed"]
"""Whether a blob's text was looked for: not yet, found, has none, could not be read."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One thing that can be made of a file.

    Args:
        kind: The word in its row: `thumbnail-512`, `playback`, `text`.
        size: A thumbnail's longest edge; else 0.
        name: The last part of a playback address; None where it was asked for by key.
    """

    kind: str
    size: int = 0
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Derived:
    """What was made of a blob. Without a key it was found that it cannot be made."""

    object_key: str | None
    mime_type: str
    sha256: str
    size_bytes: int
    created_at: int


@dataclass(frozen=True, slots=True)
class Found:
    """A file, what is known of it, and what was made of it of the wanted kind; None: not yet."""

    row: ServedRow
    facts: Facts
    text_state: str
    derived: Derived | None


@dataclass(frozen=True, slots=True)
class Source:
    """A blob that is examined."""

    object_key: str
    size_bytes: int
    detected_mime_type: str | None
    filename: str
    """What its first sender called it."""


@dataclass(frozen=True, slots=True)
class ExaminedRow:
    """What examining a blob has given so far; `has_none`: something could not be made of it."""

    agent_id: AgentId
    blob_id: BlobId
    size_bytes: int
    detected_mime_type: str | None
    facts: Facts
    text_state: TextState
    has_none: bool

    @property
    def is_lacking(self) -> bool:
        """Whether files of its type can have more than was found."""
        mime_type, facts = self.detected_mime_type, self.facts
        return (
            self.has_none
            or self.text_state == "failed"
            or (has_text(mime_type) and self.text_state == "none")
            or (can_preview(mime_type) == "image" and facts.preview != "image")
            or (can_play(mime_type) is not None and facts.playback is None)
            or (mime_type in SOUNDS and facts.seconds is None)
            or mime_type == COMPOUND  # of which program it is may be known by now
        )


def thumbnail_kind(size: int) -> str:
    """Return the word for a thumbnail in its row."""
    return f"thumbnail-{size}"


def wanted_thumbnail(size: int) -> Wanted:
    """Want a thumbnail of one of `THUMBNAIL_SIZES`."""
    return Wanted(thumbnail_kind(size), size)


@lru_cache(maxsize=256)
def wanted_by_path(path: str) -> Wanted | None:
    """Read the end of a link, after its token; None for what is no address of ours."""
    if path == _TEXT:
        return Wanted(TEXT_KIND)
    if path.startswith(_PLAYBACK):
        return Wanted(PLAYBACK_KIND, name=path.removeprefix(_PLAYBACK))
    found = _THUMBNAIL.fullmatch(path)
    if found is None or int(found[1]) not in THUMBNAIL_SIZES:
        return None
    return wanted_thumbnail(int(found[1]))


def derived_name(wanted: Wanted, filename: str, extension: str) -> str:
    """Name a copy for who saves it: after the file it was made of."""
    size = f"-{wanted.size}" if wanted.size else ""
    return f"{file_stem(filename)}{size}.{extension}"
