"""What is made of files, in a real Chromium: thumbnails, texts, copies that play.

A person opens the links of a conversation's rows, and a page of another site embeds them.
"""

from __future__ import annotations

import base64
import io
import mimetypes
import time
from pathlib import Path
from typing import Any

import pillow_heif
import pytest
from PIL import Image
from playwright.sync_api import Page

from tests.support.browser import Stage
from tests.support.server import LiveServer

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("browser")]

DATA = Path(__file__).parents[1] / "data" / "files"
THUMBNAILS = ["sample.jpg", "sample.pdf", "sample.mp4", "actually-a-png.pdf", "photo.heic"]
TEXTS = {"note.txt": "日本語", "orders.csv": "order", "policy.md": "#", "sample.docx": "tealbook"}
NOTES = ["sample.opus", "sample.amr", "sample.ogg"]
_EXAMINED_WITHIN_S = 60.0
ATTACK = b"<!doctype html><script>document.title='ran';new Image().src='%s/ran'</script><b>bold</b>"


def heic() -> bytes:
    """Make a picture as an iPhone sends it: red at its left, blue at its right, lying down."""
    picture = Image.new("RGB", (400, 200), (220, 20, 20))
    picture.paste((20, 20, 220), (200, 0, 400, 200))
    out = io.BytesIO()
    pillow_heif.from_pillow(picture).save(out)
    return out.getvalue()


@pytest.fixture(scope="module")
def rows(server: LiveServer, stage: Stage) -> dict[str, dict[str, Any]]:
    """Store files, let the server look at them, and return their rows by name."""
    agent = server.make_agent()
    made = server.post_json("/api/conversations/", {"conversation_id": "p"}, key=agent.write_key)
    names = [*THUMBNAILS[:-1], *TEXTS, *NOTES, "hostile.html"]
    files = {name: (DATA / name).read_bytes() for name in names}
    files |= {"photo.heic": heic(), "attack.html": ATTACK % stage.base_url.encode()}
    body: dict[str, Any] = {
        "conversation": made.json["id"], "sender": "end_user", "metadata": {},
        "timestamp": "2026-11-22T19:13:21Z",
        "attachments": [
            {
                "filename": name,
                "mime_type": mimetypes.guess_type(name)[0],
                "data": base64.b64encode(content).decode(),
            }
            for name, content in files.items()
        ],
    }  # fmt: skip
    assert server.post_json("/api/attachments/", body, key=agent.write_key).status in (200, 201)
    end_at = time.monotonic() + _EXAMINED_WITHIN_S
    path = f"/api/conversations/{made.json['id']}/attachments/"
    while True:
        [message] = server.get_json(path, key=agent.read_key)["messages"]
        found = {row["filename"]: row for row in message["attachments"]}
        if all(found[name]["width"] for name in ("sample.jpg", "sample.mp4", "photo.heic")) and all(
            found[name]["seconds"] for name in NOTES
        ):
            return found
        assert time.monotonic() < end_at, "the files were not examined in time"


@pytest.mark.parametrize("name", THUMBNAILS)
def test_a_thumbnail_shows(shared_page: Page, rows: dict[str, dict[str, Any]], name: str) -> None:
    """Opened directly, the browser has decoded a picture that is not one colour."""
    shared_page.goto(rows[name]["preview_url"])
    width, height = shared_page.eval_on_selector("img", "e => [e.naturalWidth, e.naturalHeight]")
    assert 0 < max(width, height) <= 512
    shot = Image.open(io.BytesIO(shared_page.locator("img").screenshot()))
    assert shot.convert("L").getextrema() != (255, 255)
    colours = shot.convert("RGB").getcolors(1 << 24)
    assert colours is not None
    assert len(colours) > 1


@pytest.mark.parametrize("name", NOTES)
def test_a_voice_note_plays_to_its_end(
    shared_page: Page, stage: Stage, rows: dict[str, dict[str, Any]], name: str
) -> None:
    """The copy of what a phone sent is wound near its end and played; it ends without an error."""
    url = rows[name]["playback_url"]
    assert url.endswith(".m4a")
    shared_page.goto(stage.show(f'<audio muted preload="auto" src="{url}"></audio>'))
    shared_page.eval_on_selector(
        "audio", "e => new Promise((done, fail) => { e.onerror = () => fail(e.error.message);"
        " if (e.readyState >= 3) done(); else e.oncanplay = () => done() })",
    )  # fmt: skip
    duration = shared_page.eval_on_selector("audio", "e => e.duration")
    assert duration == pytest.approx(rows[name]["seconds"], abs=0.3)
    played = shared_page.eval_on_selector(
        "audio",
        "e => new Promise((done, fail) => { e.onended = () => done([e.currentTime, e.error]);"
        " e.onerror = () => fail(e.error.message); e.currentTime = Math.max(0, e.duration - 0.4);"
        " e.onseeked = () => e.play().catch(fail) })",
    )
    assert played == [pytest.approx(duration, abs=0.1), None]


def test_a_voice_note_opened_directly_plays(
    shared_page: Page, rows: dict[str, dict[str, Any]]
) -> None:
    """The browser's own player has it; its time goes on."""
    shared_page.goto(rows["sample.amr"]["playback_url"])
    at = shared_page.eval_on_selector(
        "video",
        "e => new Promise((done, fail) => { e.muted = true; e.ontimeupdate = () =>"
        " { if (e.currentTime > 0) done(e.currentTime) }; e.play().catch(fail) })",
    )
    assert at > 0


def test_a_heic_picture_shows_by_its_copy(
    shared_page: Page, stage: Stage, rows: dict[str, dict[str, Any]]
) -> None:
    """As JPEG, on another site, in its own size and colours."""
    url = rows["photo.heic"]["playback_url"]
    assert url.endswith("/playback/photo.jpg")
    shared_page.goto(stage.show(f'<img src="{url}">'))
    size = shared_page.eval_on_selector(
        "img", "e => e.decode().then(() => [e.naturalWidth, e.naturalHeight])"
    )
    assert size == [400, 200]
    shot = Image.open(io.BytesIO(shared_page.locator("img").screenshot())).convert("RGB")
    left, right = shot.getpixel((50, 100)), shot.getpixel((350, 100))
    assert isinstance(left, tuple)
    assert isinstance(right, tuple)
    assert left[0] > 180 > 80 > left[2]
    assert right[2] > 180 > 80 > right[0]


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_preview_is_text(
    shared_page: Page, rows: dict[str, dict[str, Any]], name: str
) -> None:
    """Documents too: their words, as plain text."""
    shared_page.goto(rows[name]["preview_url"])
    assert shared_page.evaluate("document.contentType") == "text/plain"
    assert TEXTS[name].casefold() in shared_page.inner_text("pre").casefold()


@pytest.mark.parametrize("name", ["hostile.html", "attack.html"])
def test_the_preview_of_a_page_runs_nothing(
    page: Page, stage: Stage, rows: dict[str, dict[str, Any]], name: str
) -> None:
    """Neither opened directly nor in a frame: it is text, and nobody else is asked for anything."""
    stage.asked.clear()
    dialogs: list[str] = []
    asked: list[str] = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    page.on("request", lambda request: asked.append(request.url))
    url = rows[name]["preview_url"]
    page.goto(url, wait_until="networkidle")
    assert page.evaluate("document.contentType") == "text/plain"
    assert page.query_selector_all("b, h1, script, iframe") == []
    assert [one for one in asked if one != url and not one.endswith("/favicon.ico")] == []
    page.goto(stage.show(f'<iframe src="{url}"></iframe>'), wait_until="networkidle")
    assert page.title() == "stage"
    assert "/ran" not in stage.asked
    assert dialogs == []


def test_a_pdf_and_its_first_page_show(
    page: Page, server: LiveServer, rows: dict[str, dict[str, Any]]
) -> None:
    """The document in the viewer, by its link; its thumbnail beside it in the same page."""
    page.goto(f"{server.base_url}/healthz")
    row = rows["sample.pdf"]
    page.evaluate(
        "([file, preview]) => { document.body.innerHTML = `<img src='${preview}' width=200>"
        "<iframe src='${file}' width=600 height=400></iframe>` }",
        [row["file_url"], row["preview_url"]],
    )
    assert page.eval_on_selector("img", "e => e.decode().then(() => e.naturalHeight)") == 512
    viewer = next((one for one in page.frames if one.url.startswith("chrome-extension:")), None)
    if viewer is None:
        viewer = page.wait_for_event(
            "framenavigated", predicate=lambda one: one.url.startswith("chrome-extension:")
        )
    pages = viewer.wait_for_function(
        "() => { const v = document.querySelector('pdf-viewer');"
        " return v && v.loadProgress_ === 100 && v.docLength_ }"
    )
    assert pages.json_value() == 1
