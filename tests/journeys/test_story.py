"""The README's story: dialogues with files go in, one call brings the files back."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from agentsight import AgentSightAPI, ConversationTracker
from tests.journeys.dialogues import FILES, contents_of, load_dialogues, track
from tests.support.server import LiveServer, bare_environment, open_link

ROOT = Path(__file__).parents[2]


def test_dialogues_with_their_files(server: LiveServer) -> None:
    """Every turn, action and byte comes back."""
    agent = server.make_agent()
    dialogues = load_dialogues()
    files = sorted(FILES.iterdir())
    shares = [files[n :: len(dialogues)] for n in range(len(dialogues))]
    with ConversationTracker(agent.write_key, endpoint=server.base_url) as tracker:
        for dialogue, share in zip(dialogues, shares, strict=True):
            track(tracker, dialogue, share)
            assert tracker.send_tracked_data()["summary"]["errors"] == 0
    with AgentSightAPI(agent.read_key, endpoint=server.base_url) as api:
        for dialogue, share in zip(dialogues, shares, strict=True):
            conversation = api.fetch_conversation(dialogue["conversation_id"])
            got = [(m["sender"], m["content"]) for m in conversation["messages"]]
            assert got == contents_of(dialogue)
            answer = api.fetch_conversation_attachments(dialogue["conversation_id"])
            assert answer["total_attachments"] == len(share)
            (message,) = answer["messages"]
            for path, file in zip(share, message["attachments"], strict=True):
                assert file["filename"] == path.name
                assert open_link(file["file_url"]).body == path.read_bytes()
        found = api.fetch_conversations(metadata="vertical:Coffee", message_contains="LATTE")
        said = [d for d in dialogues if "latte" in " ".join(t for _, t in contents_of(d)).lower()]
        assert found["count"] == len(said) > 0
        assert len(list(api.iter_conversations(page_size=2))) == len(dialogues)


def test_the_lines_of_the_readme(server: LiveServer, tmp_path: Path) -> None:
    """The first Python block, to the letter but for the key, in a folder of its own."""
    readme = (ROOT / "README.md").read_text()
    block = re.search(r"```python\n(.*?)```", readme, re.DOTALL)
    assert block is not None
    lines = block[1].replace("ags_your_key", server.make_agent().write_key)
    environment = bare_environment() | {"AGENTSIGHT_API_ENDPOINT": server.base_url}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", lines],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    name, mime_type, url = done.stdout.split()
    assert (name, mime_type) == ("hello.txt", "text/plain")
    assert open_link(url).body == b"A file for my bot."
