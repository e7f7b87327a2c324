"""Types of the SDK's arguments."""

from __future__ import annotations

import os
from collections.abc import Mapping
from io import BytesIO
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["AttachmentInput", "DownloadedFile", "FileData", "TokenHandler"]

FileData: TypeAlias = bytes | BinaryIO | BytesIO
"""A file's content."""

AttachmentInput: TypeAlias = Mapping[str, Any] | str | os.PathLike[str] | bytes | BinaryIO
"""A file: a path, bytes, an open file, or a mapping with `data` (or `content`, `file`, `path`) and,
where wished, `filename` and `mime_type`."""


class DownloadedFile(NamedTuple):
    """What became of one file of `download_attachments`."""

    path: Path
    """Where it is, or was to be."""
    status: Literal["downloaded", "present", "failed", "refused"]
    """`downloaded`; `present`: the same bytes were there; `failed`: may work the next time;
    `refused`: the server does not give it out (gone, infected, deleted meanwhile)."""
    error: str | None
    """Why it failed or was refused."""
    filename: str
    """Its name as it was sent, which no path may be made of."""
    uid: str
    message_id: int
    size_bytes: int
    sha256: str

    @property
    def is_here(self) -> bool:
        """Whether `path` holds the file, verified."""
        return self.error is None


class TokenHandler:
    """Four counters, by the names 0.0.x gave them."""

    def __init__(self) -> None:
        self.prompt_llm_token_count = 0
        self.completion_llm_token_count = 0
        self.total_llm_token_count = 0
        self.total_embedding_token_count = 0
