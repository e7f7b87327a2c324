"""Types of the SDK's arguments."""

from __future__ import annotations

import os
from collections.abc import Mapping
from io import BytesIO
from typing import Any, BinaryIO, TypeAlias

__all__ = ["AttachmentInput", "FileData", "TokenHandler"]

FileData: TypeAlias = bytes | BinaryIO | BytesIO
"""A file's content."""

AttachmentInput: TypeAlias = Mapping[str, Any] | str | os.PathLike[str] | bytes | BinaryIO
"""A file: a path, bytes, an open file, or a mapping with `data` (or `content`, `file`, `path`) and,
where wished, `filename` and `mime_type`."""


class TokenHandler:
    """Four counters, by the names 0.0.x gave them."""

    def __init__(self) -> None:
        self.prompt_llm_token_count = 0
        self.completion_llm_token_count = 0
        self.total_llm_token_count = 0
        self.total_embedding_token_count = 0
