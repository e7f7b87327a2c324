"""Five real dialogues, and how a bot would have tracked them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from agentsight import ConversationTracker

DATA = Path(__file__).parents[1] / "data"
FILES = DATA / "files"


def load_dialogues() -> list[dict[str, Any]]:
    """Read the committed dialogues."""
    lines = (DATA / "dialogues.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def contents_of(dialogue: dict[str, Any]) -> list[tuple[str, str]]:
    """Say what its transcript must read: each turn, then the actions that follow it."""
    expected: list[tuple[str, str]] = []
    for turn in dialogue["turns"]:
        sender = "end_user" if turn["speaker"] == "user" else "agent"
        expected.append((sender, turn["text"]))
        expected += [
            ("agent", f"Action {call['name']} performed") for call in turn.get("api_calls", ())
        ]
    return expected


def track(
    tracker: ConversationTracker,
    dialogue: dict[str, Any],
    files: list[Path],
    conversation_id: str | None = None,
) -> None:
    """Track a dialogue; its files go with the customer's first message."""
    tracker.get_or_create_conversation(
        conversation_id or dialogue["conversation_id"],
        customer_id="customer-1",
        source="website",
        language="en",
        name=dialogue["scenario"],
        metadata={"vertical": dialogue["vertical"]},
    )
    for turn in dialogue["turns"]:
        if turn["speaker"] == "user":
            tracker.track_human_message(turn["text"], attachments=files)
            files = []
        else:
            tracker.track_agent_message(turn["text"])
        for call in turn.get("api_calls", ()):
            tracker.track_action(
                call["name"], tools_used=json.loads(call["request"]), response=call["response"]
            )
