"""`make demo`: real conversations with real files go in through the SDK and come out by one call.

Starts a server of its own in a scratch directory on a free port, makes an agent and a key, tracks
dialogues with files of each of the five types, prints what `fetch_conversation_attachments`
answers, opens every link and compares the bytes. On a terminal it then serves on until Enter, so
that the links can be clicked.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from agentsight import AgentSightAPI, ConversationTracker

DATA = Path(__file__).parent / "data"
# In this order, so that the first conversation shows a picture, a document and a sound.
FILES = [
    DATA / "files" / name
    for name in (
        "sample.png",
        "sample.pdf",
        "sample.mp3",
        "orders.csv",
        "sample.mp4",
        "sample.docx",
        "sample.jpg",
        "policy.md",
        "sample.oga",
        "sample.xlsx",
        "note.txt",
    )
]
IS_TERMINAL = sys.stdout.isatty()
COMMAND = [str(Path(sys.executable).with_name("agentsight"))]
READY = re.compile(r"https?://[^\s]+")


def paint(text: str, code: str) -> str:
    """Colour a text where somebody sees it."""
    coloured = IS_TERMINAL or os.environ.get("FORCE_COLOR")
    return f"\033[{code}m{text}\033[0m" if coloured and not os.environ.get("NO_COLOR") else text


def heading(text: str) -> None:
    """Print what comes next."""
    print(f"\n{paint(text, '1;36')}", flush=True)


def run(*arguments: str) -> str:
    """Run an agentsight command and return what it prints."""
    done = subprocess.run([*COMMAND, *arguments], check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"agentsight {' '.join(arguments)} failed:\n{done.stderr}")
    return done.stdout.strip()


def wait_until_ready(process: subprocess.Popen[str], output: IO[str]) -> str:
    """Read the server's output until it names its address."""
    lines: list[str] = []
    for line in output:
        lines.append(line)
        found = READY.search(line)
        if "ready" in line.lower() and found:
            return found[0].rstrip("/.")
    raise SystemExit(f"the server ended with {process.wait()}:\n{''.join(lines)}")


@contextlib.contextmanager
def server(data: str) -> Iterator[str]:
    """Serve from `data` on a free port for the length of the block."""
    command = [*COMMAND, "serve", "--data", data, "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            assert process.stdout is not None
            yield wait_until_ready(process, process.stdout)
        finally:
            process.terminate()


def read_dialogues() -> list[dict[str, Any]]:
    """Read the dialogues that come with the project."""
    with (DATA / "dialogues.jsonl").open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def track(tracker: ConversationTracker, dialogue: dict[str, Any], files: Iterator[Path]) -> int:
    """Track one dialogue as its bot would have; returns how many files went with it."""
    tracker.get_or_create_conversation(
        dialogue["conversation_id"],
        customer_id="coffee-customer",
        device="mobile",
        language="en",
        name=dialogue["scenario"],
        environment="development",
        metadata={"vertical": dialogue["vertical"]},
    )
    n_files = 0
    for turn in dialogue["turns"]:
        attached = [next(files)] if turn["speaker"] == "assistant" else []
        if turn["speaker"] == "user":
            attached = [next(files)] if n_files == 0 else []
            tracker.track_human_message(turn["text"], attachments=attached)
        else:
            tracker.track_agent_message(turn["text"], attachments=attached)
        n_files += len(attached)
        for call in turn.get("api_calls", ()):
            tracker.track_action(
                call["name"], tools_used=json.loads(call["request"]), response=call["response"]
            )
    result = tracker.send_tracked_data()
    if result["summary"]["errors"]:
        raise SystemExit(f"not everything was stored: {result}")
    return n_files


_TOKEN = re.compile(r'("(?:[^"\\]|\\.)*")(\s*:)?|\b(\d+)\b')


def colour_json(value: Any) -> str:
    """Return indented JSON with keys, texts and numbers in colours."""

    def colour(found: re.Match[str]) -> str:
        text, colon, number = found.groups()
        if number is not None:
            return paint(number, "33")
        return paint(text, "34") + colon if colon else paint(text, "32")

    return _TOKEN.sub(colour, json.dumps(value, indent=2, ensure_ascii=False))


def show(answer: dict[str, Any]) -> None:
    """Print the answer with the six keys of each file that were promised; name the others."""
    keys = ("id", "type", "filename", "mime_type", "size_bytes", "file_url")
    shown = {key: answer[key] for key in ("conversation_id", "conversation", "total_attachments")}
    shown["messages"] = [
        {
            **{key: message[key] for key in ("message_id", "sender", "timestamp")},
            "attachments": [{key: row[key] for key in keys} for row in message["attachments"]],
        }
        for message in answer["messages"]
    ]
    print(colour_json(shown))
    first = answer["messages"][0]["attachments"][0]
    print(f"  (each file also has {', '.join(key for key in first if key not in keys)})")


def open_links(answer: dict[str, Any]) -> tuple[int, set[str]]:
    """Open every link without a key and compare the bytes with the file that went in."""
    original_by_name = {path.name: path for path in FILES}
    types: set[str] = set()
    n_links = 0
    for message in answer["messages"]:
        for row in message["attachments"]:
            with urllib.request.urlopen(row["file_url"], timeout=10) as reply:
                same = reply.read() == original_by_name[row["filename"]].read_bytes()
            verdict = paint("same bytes", "32") if same else paint("DIFFERENT BYTES", "1;31")
            print(f"  {row['type']:<9}{row['size_bytes']:>8} bytes  {verdict}  {row['filename']}")
            if not same:
                raise SystemExit("a file came back changed")
            types.add(row["type"])
            n_links += 1
    return n_links, types


def main() -> None:
    """Run the demo."""
    with tempfile.TemporaryDirectory(prefix="agentsight-demo-") as data:
        heading("Starting a server in a scratch directory on a free port")
        with server(data) as url:
            print(f"  {url}")
            run("agents", "create", "demo", "--data", data)
            key = run("keys", "create", "--agent", "demo", "--role", "write", "--data", data)
            print("  made the agent 'demo' and a write key")

            heading("Tracking real dialogues with real files")
            tracker = ConversationTracker(api_key=key, endpoint=url)
            dialogues, files = read_dialogues(), itertools.cycle(FILES)
            for dialogue in dialogues:
                n_files = track(tracker, dialogue, files)
                n_turns = len(dialogue["turns"])
                print(f"  {dialogue['conversation_id']}: {n_turns} messages, {n_files} files")

            api = AgentSightAPI(api_key=key, endpoint=url)
            first = dialogues[0]["conversation_id"]
            heading(f'agentsight_api.fetch_conversation_attachments("{first}")')
            show(api.fetch_conversation_attachments(first))

            heading("Opening every file_url of every conversation, without a key")
            total, types = 0, set[str]()
            for dialogue in dialogues:
                answer = api.fetch_conversation_attachments(dialogue["conversation_id"])
                n_links, found = open_links(answer)
                total, types = total + n_links, types | found
            print(
                paint(f"\n  {total} files of {len(types)} types", "1;32")
                + f" ({', '.join(sorted(types))}) came back, all with the same bytes."
            )
            if IS_TERMINAL and sys.stdin.isatty():
                input(f"\nThe links above work while this runs ({url}). Press Enter to stop. ")
    heading("Next")
    print("  make serve      a server that keeps its data; its start page says how to go on")
    print("  README.md       the fifteen lines that track and fetch")


if __name__ == "__main__":
    main()
