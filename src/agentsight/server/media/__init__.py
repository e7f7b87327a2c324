"""What files hold and look like, learned by a process of its own. Files in, values and files out.

Knows neither database nor HTTP nor blobs. The server's process never imports a library that parses
files: those are for `child.py` and `readers/`, which run in a sandbox, with limits on memory and
time.
"""

from agentsight.server.media.examiner import Examiner
from agentsight.server.media.kinds import (
    PLAYBACK_MIME_TYPES,
    PreviewKind,
    can_examine,
    can_play,
    can_preview,
    has_text,
    settled_type,
)
from agentsight.server.media.model import PREVIEW_MIME_TYPE, Examined, ExaminerDied, Made
from agentsight.server.media.sandbox import gaps as sandbox_gaps

__all__ = [
    "PLAYBACK_MIME_TYPES",
    "PREVIEW_MIME_TYPE",
    "Examined",
    "Examiner",
    "ExaminerDied",
    "Made",
    "PreviewKind",
    "can_examine",
    "can_play",
    "can_preview",
    "has_text",
    "sandbox_gaps",
    "settled_type",
]
