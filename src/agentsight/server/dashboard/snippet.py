"""The fifteen lines of Python that the start page shows; a test runs them as they stand."""

from __future__ import annotations

SNIPPET = """\
from pathlib import Path
from agentsight import agentsight_api, conversation_tracker

key, server = "{key}", "{base_url}"
conversation_tracker.configure(api_key=key, endpoint=server)
conversation_tracker.get_or_create_conversation("conv-start", customer_id="ada")
Path("hello.txt").write_text("A file for my bot.")
conversation_tracker.track_human_message("Read this", attachments=["hello.txt"])
conversation_tracker.track_agent_message("A file for your bot.")
conversation_tracker.send_tracked_data()
agentsight_api.configure(api_key=key, endpoint=server)
files = agentsight_api.fetch_conversation_attachments("conv-start")
for message in files["messages"]:
    for file in message["attachments"]:
        print(file["filename"], file["mime_type"], file["file_url"])
"""
KEY_PLACEHOLDER = "ags_your_key"


def snippet(base_url: str, key: str = KEY_PLACEHOLDER) -> str:
    """Return the lines for this server; a page never shows a key, so a placeholder is there."""
    return SNIPPET.format(base_url=base_url, key=key)
