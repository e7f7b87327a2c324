"""Links in a real Chromium: opened directly, and embedded in a page of another site.

What is inert shows and plays; what could run is downloaded and does not.
"""

from __future__ import annotations

import base64
import io
import mimetypes
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Download, Error, Page, Response

from tests.support.browser import Stage
from tests.support.server import LiveServer

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("browser")]

DATA = Path(__file__).parents[1] / "data" / "files"
PICTURES = ["sample.png", "sample.jpg", "sample.gif", "sample.webp"]
SOUNDS = ["sample.mp3", "sample.ogg", "sample.m4a", "sample.opus"]
VIDEOS = ["sample.mp4", "sample.webm"]
TEXTS = ["note.txt", "orders.csv", "policy.md"]
ATTACKS = ["hostile.svg", "hostile.html", "attack.svg", "attack.html", "attack.xhtml", "attack.js"]
DOWNLOADS = [*ATTACKS, "actually-a-png.pdf", "lie.png", "sample.docx", "sample.zip"]
MEDIA_READY = "e => new Promise(done => e.readyState >= 2 ? done() : e.oncanplay = () => done())"


def attacks(target: str) -> dict[str, bytes]:
    """Make files that would send a request to `target`, and rename the page, if they ran."""
    script = f"document.title='ran';fetch('{target}/ran');new Image().src='{target}/ran'"
    svg = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9" onload="{0}"><script>{0}'
    xhtml = '<html xmlns="http://www.w3.org/1999/xhtml"><body><script>{0}</script></body></html>'
    return {
        "attack.svg": f"{svg.format(script)}</script></svg>".encode(),
        "attack.html": (
            f"<!doctype html><script>{script}</script><img src='{target}/ran'>"
            f"<meta http-equiv=refresh content='0;url={target}/ran'>"
        ).encode(),
        "attack.xhtml": xhtml.format(script).encode(),
        "attack.js": script.encode(),
        "lie.png": f"<!doctype html><script>{script}</script>".encode(),
    }


def large_png(edge: int) -> bytes:
    """Make a picture that is larger than any window."""
    out = io.BytesIO()
    Image.new("L", (edge, edge), 200).save(out, "PNG")
    return out.getvalue()


@pytest.fixture(scope="module")
def links(server: LiveServer, stage: Stage) -> dict[str, str]:
    """Store every file and return the links of the one call by name."""
    agent = server.make_agent()
    made = server.post_json("/api/conversations/", {"conversation_id": "c"}, key=agent.write_key)
    files = {path.name: path.read_bytes() for path in DATA.iterdir()} | attacks(stage.base_url)
    files["large.png"] = large_png(2000)
    body: dict[str, Any] = {
        "conversation": made.json["id"], "sender": "agent", "metadata": {},
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
    path = f"/api/conversations/{made.json['id']}/attachments/"
    answer = server.get_json(path, key=agent.read_key)
    return {
        row["filename"]: row["file_url"]
        for message in answer["messages"]
        for row in message["attachments"]
    }


def open_download(page: Page, url: str) -> Download:
    """Open an address that must be a download and nothing else."""
    with page.expect_download() as coming, pytest.raises(Error, match="Download is starting"):
        page.goto(url)
    return coming.value


# --- Opened directly ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_shows(shared_page: Page, links: dict[str, str], name: str) -> None:
    """The browser's own picture page has decoded it."""
    shared_page.goto(links[name])
    width, height = shared_page.eval_on_selector("img", "e => [e.naturalWidth, e.naturalHeight]")
    assert (width, height) == (200, 133)


def test_a_picture_stands_in_the_middle(page: Page, links: dict[str, str]) -> None:
    """A small one is centred, a large one fits the window, and the console has no complaint."""
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.set_viewport_size({"width": 600, "height": 300})
    for name, width, height in (("sample.png", 200, 133), ("large.png", 300, 300)):
        page.goto(links[name])
        page.wait_for_function(
            "height => document.images[0].getBoundingClientRect().height === height", arg=height
        )
        box = page.locator("img").bounding_box()
        assert box is not None
        assert (box["width"], box["height"]) == (width, height)
        assert box["x"] == (600 - width) / 2
        assert box["y"] == pytest.approx((300 - height) / 2, abs=1)
    assert said == []


@pytest.mark.parametrize("name", SOUNDS + VIDEOS)
def test_sound_and_video_play(shared_page: Page, links: dict[str, str], name: str) -> None:
    """The browser's own player has decoded it, plays and has no error."""
    shared_page.goto(links[name])
    shared_page.eval_on_selector("video", MEDIA_READY)
    shared_page.eval_on_selector("video", "e => { e.muted = true; return e.play() }")
    assert shared_page.eval_on_selector("video", "e => e.error") is None


@pytest.mark.parametrize("name", TEXTS)
def test_text_shows_as_it_is(shared_page: Page, links: dict[str, str], name: str) -> None:
    """Text is text: nothing in it becomes a page, and its characters are right."""
    shared_page.goto(links[name])
    assert shared_page.evaluate("document.contentType") == "text/plain"
    assert shared_page.inner_text("pre").split() == (DATA / name).read_text().split()


def test_a_pdf_is_shown_by_the_viewer(page: Page, links: dict[str, str]) -> None:
    """The browser's PDF viewer has loaded the whole document and counted its pages."""
    page.goto(links["sample.pdf"])
    assert pages_in_viewer(page) == 1


def pages_in_viewer(page: Page) -> int:
    """Return how many pages the PDF viewer shows; it lives in a frame of an extension."""
    viewer = next((one for one in page.frames if one.url.startswith("chrome-extension:")), None)
    if viewer is None:
        viewer = page.wait_for_event(
            "framenavigated", predicate=lambda one: one.url.startswith("chrome-extension:")
        )
    loaded = viewer.wait_for_function(
        "() => { const v = document.querySelector('pdf-viewer');"
        " return v && v.loadProgress_ === 100 && v.docLength_ }"
    )
    return int(loaded.json_value())


@pytest.mark.parametrize("name", DOWNLOADS)
def test_what_could_run_is_downloaded(shared_page: Page, links: dict[str, str], name: str) -> None:
    """Active, lying and unknown files reach the disk whole, and never a page."""
    before = shared_page.url
    download = open_download(shared_page, links[name])
    assert download.suggested_filename == name
    path = download.path()
    if (DATA / name).exists():
        assert path.read_bytes() == (DATA / name).read_bytes()
    assert shared_page.title() != "ran"
    assert shared_page.url == before


# --- Embedded by another site ---------------------------------------------------------------------


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_shows_on_another_site(
    shared_page: Page, stage: Stage, links: dict[str, str], name: str
) -> None:
    """A transcript on the agency's own site can show it."""
    shared_page.goto(stage.show(f'<img src="{links[name]}">'))
    assert shared_page.eval_on_selector("img", "e => e.decode().then(() => e.naturalWidth)") == 200


@pytest.mark.parametrize(
    ("tag", "name"), [("audio", name) for name in SOUNDS] + [("video", name) for name in VIDEOS]
)
def test_media_play_and_seek_on_another_site(
    shared_page: Page, stage: Stage, links: dict[str, str], tag: str, name: str
) -> None:
    """They load, play and can be wound, by ranges."""
    answers: list[Response] = []
    shared_page.on("response", lambda response: answers.append(response))
    shared_page.goto(stage.show(f'<{tag} muted preload="auto" src="{links[name]}"></{tag}>'))
    shared_page.eval_on_selector(tag, MEDIA_READY)
    shared_page.eval_on_selector(tag, "e => e.play()")
    where = shared_page.eval_on_selector(
        tag,
        "e => new Promise(done => { e.pause(); e.onseeked = () => done(e.currentTime / e.duration);"
        " e.currentTime = e.duration / 2 })",
    )
    assert where == pytest.approx(0.5, abs=0.05)
    assert shared_page.eval_on_selector(tag, "e => e.seekable.length && e.error === null")
    assert {answer.status for answer in answers if answer.url == links[name]} == {206}


def test_a_quicktime_video_plays_on_another_site(
    shared_page: Page, stage: Stage, links: dict[str, str]
) -> None:
    """Chromium plays what an iPhone sends in a player, though it opens no page for the type."""
    shared_page.goto(
        stage.show(f'<video muted preload="auto" src="{links["sample.mov"]}"></video>')
    )
    shared_page.eval_on_selector("video", MEDIA_READY)
    assert shared_page.eval_on_selector("video", "e => e.videoWidth") > 0


def test_text_shows_in_a_frame_of_another_site(
    shared_page: Page, stage: Stage, links: dict[str, str]
) -> None:
    """It is in a sandbox of its own there."""
    shared_page.goto(stage.show(f'<iframe src="{links["note.txt"]}"></iframe>'))
    text = shared_page.frame_locator("iframe").locator("pre").inner_text()
    assert text.split() == (DATA / "note.txt").read_text().split()


@pytest.mark.parametrize("tag", ["iframe", "embed"])
def test_a_pdf_is_not_framed_by_another_site(
    page: Page, stage: Stage, links: dict[str, str], tag: str
) -> None:
    """frame-ancestors keeps a stranger from dressing a document up as their own page."""
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    with page.expect_event("requestfailed") as failed:
        page.goto(stage.show(f'<{tag} width="600" height="400" src="{links["sample.pdf"]}">'))
    assert failed.value.failure == "net::ERR_BLOCKED_BY_RESPONSE"
    assert any("frame-ancestors" in text for text in said)


@pytest.mark.parametrize("tag", ["iframe", "embed"])
def test_a_pdf_shows_in_a_frame_of_its_own_site(
    page: Page, server: LiveServer, links: dict[str, str], tag: str
) -> None:
    """Our own pages may show it."""
    page.goto(f"{server.base_url}/healthz")
    page.evaluate(
        "([tag, url]) => { const e = document.createElement(tag); e.src = url; e.width = 600;"
        " e.height = 400; document.body.append(e) }",
        [tag, links["sample.pdf"]],
    )
    assert pages_in_viewer(page) == 1


@pytest.mark.parametrize("tag", ["iframe", "embed", "object"])
def test_attacks_in_frames_do_not_run(
    page: Page, stage: Stage, links: dict[str, str], tag: str
) -> None:
    """A frame of them is a download at most; their scripts send nothing."""
    stage.asked.clear()
    attribute = "data" if tag == "object" else "src"
    frames = [
        f'<{tag} {attribute}="{links[name]}"></{tag}>'
        for name in ("attack.svg", "attack.html", "attack.xhtml")
    ]
    page.goto(stage.show("".join(frames)), wait_until="load")
    ask_for_the_end(page, stage)
    assert "/ran" not in stage.asked
    assert page.title() == "stage"


def test_attacks_as_parts_of_a_page_do_not_run(
    page: Page, stage: Stage, links: dict[str, str]
) -> None:
    """Not as a picture, nor as a script: their type says bytes, and nosniff keeps it so."""
    stage.asked.clear()
    errors: list[Exception] = []
    page.on("pageerror", lambda error: errors.append(error))
    markup = f"""
        <img src="{links["attack.svg"]}">
        <script src="{links["attack.js"]}"></script>
        <script src="{links["note.txt"]}"></script>
        <script type="module" src="{links["attack.js"]}"></script>
        <link rel="stylesheet" href="{links["attack.js"]}">
        <img src="{links["lie.png"]}">
        <video src="{links["attack.html"]}"></video>"""
    page.goto(stage.show(markup), wait_until="load")
    ask_for_the_end(page, stage)
    assert "/ran" not in stage.asked
    assert page.title() == "stage"
    assert errors == []


def test_all_attacks_opened_directly_send_nothing(
    page: Page, stage: Stage, links: dict[str, str]
) -> None:
    """The other site hears of none of them."""
    stage.asked.clear()
    for name in ATTACKS:
        open_download(page, links[name]).path()
    ask_for_the_end(page, stage)
    assert "/ran" not in stage.asked


def test_the_stage_hears_an_attack_that_runs(page: Page, stage: Stage) -> None:
    """The tests above can fail: the same files, served as what they say, do run."""
    stage.asked.clear()
    with page.expect_request("**/ran"):
        page.goto(stage.show(attacks(stage.base_url)["attack.html"].decode()))
    ask_for_the_end(page, stage)
    assert "/ran" in stage.asked


def ask_for_the_end(page: Page, stage: Stage) -> None:
    """Send a last request from a page, behind everything that was sent before."""
    other = page.context.new_page()
    other.goto(f"{stage.base_url}/end")
    other.close()
    assert "/end" in stage.asked
