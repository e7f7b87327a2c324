"""Previews as their callers see them: in rows, by link, by key."""

from __future__ import annotations

import asyncio
import hashlib
import io
import struct
import zlib
from typing import Any

import pytest
from PIL import Image

from agentsight.server.attachments.presentation import PICTURE, SANDBOX
from agentsight.server.previews import service
from agentsight.server.previews.model import wanted_thumbnail
from tests.server.previews.gallery import data_of, examine_all, read_rows, send_files
from tests.support.http import House, People, Person, path_of

pytestmark = pytest.mark.anyio

# name: width, height, pages, whether it plays for some seconds, preview, playback
REAL_FILES: dict[str, tuple[int | None, int | None, int | None, bool, str | None, str | None]] = {
    "actually-a-png.pdf": (200, 133, None, False, "image", None),
    "by-word.doc": (None, None, None, False, "text", None),
    "by-xlwt.xls": (None, None, 2, False, "text", None),
    "chairs.doc": (None, None, None, False, "text", None),
    "chairs.ppt": (None, None, 3, False, "text", None),
    "chairs.xls": (None, None, 2, False, "text", None),
    "hostile.html": (None, None, None, False, "text", None),
    "hostile.svg": (None, None, None, False, "text", None),
    "note.txt": (None, None, None, False, "text", None),
    "orders.csv": (None, None, None, False, "text", None),
    "policy.md": (None, None, None, False, "text", None),
    "sample-scan.pdf": (None, None, 1, False, "image", None),
    "sample.3gp": (504, 288, None, True, "image", "mp4"),
    "sample.amr": (None, None, None, True, None, "m4a"),
    "sample.docx": (None, None, None, False, "text", None),
    "sample.gif": (200, 133, None, False, "image", None),
    "sample.heic": (1440, 960, None, False, "image", "jpg"),
    "sample.jpg": (200, 133, None, False, "image", None),
    "sample.m4a": (None, None, None, True, None, None),
    "sample.mov": (268, 156, None, True, "image", None),
    "sample.mp3": (None, None, None, True, None, None),
    "sample.mp4": (640, 356, None, True, "image", None),
    "sample.odt": (None, None, None, False, "text", None),
    "sample.oga": (None, None, None, True, None, "m4a"),
    "sample.ogg": (None, None, None, True, None, "m4a"),
    "sample.opus": (None, None, None, True, None, "m4a"),
    "sample.pdf": (None, None, 1, False, "image", None),
    "sample.png": (200, 133, None, False, "image", None),
    "sample.pptx": (None, None, 1, False, "text", None),
    "sample.vcf": (None, None, None, False, "text", None),
    "sample.wav": (None, None, None, True, None, None),
    "sample.webm": (640, 356, None, True, "image", None),
    "sample.webp": (200, 133, None, False, "image", None),
    "sample.xlsx": (None, None, 3, False, "text", None),
    "sample.zip": (None, None, None, False, None, None),
}


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """Make one chunk of a PNG."""
    checksum = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + checksum


def huge_png(edge: int = 60_000) -> bytes:
    """Make a picture of a few kilobytes that would be of gigabytes in memory."""
    header = struct.pack(">IIBBBBB", edge, edge, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + png_chunk(b"IDAT", zlib.compress(bytes(1_000_000)))
        + png_chunk(b"IEND", b"")
    )


def photo(
    width: int = 800, height: int = 400, *, kind: str = "JPEG", orientation: int = 1
) -> bytes:
    """Make a picture, red at its left and blue at its right, with a camera's data."""
    picture = Image.new("RGB", (width, height), (220, 20, 20))
    picture.paste((20, 20, 220), (width // 2, 0, width, height))
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "Secretcam"
    exif.get_ifd(0x8825)[1] = "N"
    out = io.BytesIO()
    picture.save(out, kind, exif=exif)
    return out.getvalue()


def opened(body: bytes) -> Image.Image:
    """Read a picture that came back, whole."""
    picture = Image.open(io.BytesIO(body))
    picture.load()
    return picture


async def one_file(
    house: House, person: Person, name: str, data: bytes, **fields: Any
) -> dict[str, Any]:
    """Hand in one file, let it be examined, and return its row."""
    rows = await send_files(person, (name, data), **fields)
    await examine_all(house, person)
    return (await read_rows(person, rows))[name]


@pytest.mark.slow
async def test_rows_say_what_real_files_are(house: House, people: People) -> None:
    """Every real file has its size, pages or seconds, and previews that open."""
    rows = await send_files(people.alice, *((name, data_of(name)) for name in REAL_FILES))
    await examine_all(house, people.alice)
    for name, row in (await read_rows(people.alice, rows)).items():
        width, height, pages, plays, preview, playback = REAL_FILES[name]
        assert (row["width"], row["height"], row["pages"]) == (width, height, pages), name
        assert (row["seconds"] is not None) == plays, name
        assert row["scan"] == "not_scanned"
        folder = row["file_url"].rpartition("/")[0]
        ends = {"image": "preview/512.webp", "text": "preview/text.txt", None: None}
        end = ends[preview]
        assert row["preview_url"] == (end and f"{folder}/{end}"), name
        stem = name.rpartition(".")[0]
        assert row["playback_url"] == (playback and f"{folder}/playback/{stem}.{playback}"), name
        await check_opens(house, row, width, height)


@pytest.mark.parametrize(
    ("name", "mime_type", "words"),
    [
        ("chairs.doc", "application/msword", "жалоба НА стулья"),
        ("chairs.xls", "application/vnd.ms-excel", "gerät KAPUTT"),
        ("chairs.ppt", "application/vnd.ms-powerpoint", "ärger im möbelhaus"),
    ],
)
async def test_office_files_of_before_2007_are_found_and_shown(
    house: House, people: People, name: str, mime_type: str, words: str
) -> None:
    """Their type is settled by the whole file, where the first bytes did not tell it."""
    row = await one_file(house, people.alice, name, data_of(name))
    assert row["detected_mime_type"] == mime_type
    answer = await people.alice.get("/api/v1/attachments/", {"text_contains": words})
    assert [found["uid"] for found in answer.json()["results"]] == [row["uid"]]
    answer = await people.alice.get("/api/v1/attachments/", {"detected_mime_type": mime_type})
    assert [found["uid"] for found in answer.json()["results"]] == [row["uid"]]
    assert (await people.carol.get("/api/v1/attachments/", {"text_contains": words})).json()[
        "count"
    ] == 0
    shown = await house.stranger.get(path_of(row["preview_url"]))
    assert words.casefold() in shown.body.decode().casefold()
    file = await house.stranger.get(path_of(row["file_url"]))
    assert file.headers["content-disposition"].startswith("attachment")


async def check_opens(
    house: House, row: dict[str, Any], width: int | None, height: int | None
) -> None:
    """Open a row's links as anybody's browser would."""
    if row["preview_url"]:
        answer = await house.stranger.get(path_of(row["preview_url"]))
        assert answer.status == 200, row["filename"]
        policy = PICTURE if row["preview_url"].endswith(".webp") else SANDBOX
        assert answer.headers["content-security-policy"] == policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-disposition"].startswith("inline")
        if row["preview_url"].endswith(".webp"):
            assert answer.headers["content-type"] == "image/webp"
            picture = opened(answer.body)
            assert max(picture.size) <= 512
            if width and height:
                assert picture.size[0] / picture.size[1] == pytest.approx(width / height, rel=0.02)
        else:
            assert answer.headers["content-type"] == "text/plain; charset=utf-8"
            assert answer.body.decode().strip()
    if row["playback_url"]:
        answer = await house.stranger.get(path_of(row["playback_url"]))
        suffix = row["playback_url"].rpartition(".")[2]
        copied = {"m4a": "audio/mp4", "mp4": "video/mp4", "jpg": "image/jpeg"}[suffix]
        assert (answer.status, answer.headers["content-type"]) == (200, copied)
        assert (answer.body[4:8] == b"ftyp") == (suffix != "jpg")


async def test_previews_and_copies_are_counted_and_in_the_audit_log(
    house: House, people: People
) -> None:
    """By link and by key, who was given which file's; showing it again makes none."""
    name, alice = "sample.heic", people.alice
    row = await one_file(house, alice, name, data_of(name) + alice.slug.encode())
    before = await made_so_far(house)
    for _ in range(2):
        assert (await house.stranger.get(path_of(row["preview_url"]))).status == 200
        assert (await house.stranger.get(path_of(row["playback_url"]))).status == 200
    by_key = await alice.reader.get(f"/api/v1/attachments/{row['uid']}/preview/")
    assert by_key.status == 200
    after = await made_so_far(house)
    assert [now - then for now, then in zip(after, before, strict=True)] == [1, 1]
    await house.parts.audit.flush(house.db, house.clock(), is_last=True)
    noted = await house.rows(
        "SELECT principal, subject_kind, subject_uid, sum(n) FROM audit_log"
        " WHERE agent_id = $1 AND action = 'preview' GROUP BY 1, 2, 3 ORDER BY 1",
        alice.access.agent_id,
    )
    assert noted == [("key", "attachment", row["uid"], 1), ("link", "attachment", row["uid"], 4)]


async def made_so_far(house: House) -> list[float]:
    """Read how many thumbnails and copies to play were made."""
    lines = (await house.stranger.get("/metrics")).body.decode().splitlines()
    numbers = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    kinds = ("thumbnail", "playback")
    return [float(numbers[f'agentsight_previews_total{{kind="{kind}"}}']) for kind in kinds]


async def test_the_one_call_and_transcripts_have_the_facts(house: House, people: People) -> None:
    """Copies of the facts stand in every row of the blob, those that came before and after."""
    first = await one_file(house, people.alice, "sample.png", data_of("sample.png"))
    rows = await send_files(people.alice, ("again.png", data_of("sample.png")))
    assert rows["again.png"]["width"] == first["width"] == 200
    pk = await people.alice.conversation("c-again.png")
    [flat] = (await people.alice.files(pk))["attachments"]
    assert list(flat)[6:] == [
        "uid", "sha256", "file_url_expires_at", "url", "message", "detected_mime_type", "width",
        "height", "pages", "seconds", "scan", "preview_url", "playback_url",
    ]  # fmt: skip
    [message] = await people.alice.transcript(pk)
    assert message["attachments"] == [flat]


async def test_before_they_are_examined_rows_say_what_the_type_promises(people: People) -> None:
    """The answer to the upload links to a preview, which is then made for who asks."""
    rows = await send_files(people.alice, ("a.jpg", photo()), ("a.bin", b"\x00\x01\x02\xff"))
    assert rows["a.jpg"]["preview_url"].endswith("/preview/512.webp")
    assert rows["a.jpg"]["detected_mime_type"] == "image/jpeg"
    assert (rows["a.bin"]["preview_url"], rows["a.bin"]["detected_mime_type"]) == (None, None)


@pytest.mark.parametrize("size", [128, 512, 1600])
async def test_sizes(house: House, people: People, size: int) -> None:
    """A thumbnail's longest edge is the one asked for, and never more than the picture has."""
    row = await one_file(house, people.alice, "wide.jpg", photo(3200, 1600))
    url = row["preview_url"].replace("/512.webp", f"/{size}.webp")
    answer = await house.stranger.get(path_of(url))
    assert opened(answer.body).size == (size, size // 2)
    by_key = await people.alice.reader.get(
        f"/api/v1/attachments/{row['uid']}/preview/", {"size": size}
    )
    assert by_key.body == answer.body
    assert by_key.headers["cross-origin-resource-policy"] == "same-origin"


async def test_orientation_is_honoured_and_camera_data_left_out(
    house: House, people: People
) -> None:
    """A picture held sideways stands upright, and says nothing of place and camera."""
    data = photo(800, 400, orientation=6)  # to be turned a quarter to the right
    assert b"Secretcam" in data
    row = await one_file(house, people.alice, "held.jpg", data)
    assert (row["width"], row["height"]) == (400, 800)
    body = (await house.stranger.get(path_of(row["preview_url"]))).body
    picture = opened(body).convert("RGB")
    assert picture.size == (256, 512)
    top, bottom = picture.getpixel((128, 20)), picture.getpixel((128, 490))
    assert isinstance(top, tuple)
    assert isinstance(bottom, tuple)
    assert top[0] > 150 > bottom[0], "red is at the top, blue at the bottom"
    assert b"Secretcam" not in body
    assert b"EXIF" not in body
    assert (await house.stranger.get(path_of(row["file_url"]))).body == data


async def test_what_browsers_do_not_show_has_a_copy(house: House, people: People) -> None:
    """A TIFF has a JPEG of its whole size beside it, after its name; the original is untouched."""
    data = photo(300, 200, kind="TIFF")
    row = await one_file(house, people.alice, "Büro scan.v2.tiff", data)
    assert row["playback_url"].endswith("/playback/B%C3%BCro%20scan.v2.jpg")
    answer = await house.stranger.get(path_of(row["playback_url"]))
    assert answer.headers["content-type"] == "image/jpeg"
    assert opened(answer.body).size == (300, 200)
    other = row["playback_url"].replace("scan.v2", "other")
    assert (await house.stranger.get(path_of(other))).is_error(404, "no_preview")
    by_key = await people.alice.reader.get(f"/api/v1/attachments/{row['uid']}/playback/")
    assert by_key.body == answer.body
    assert (await house.stranger.get(path_of(row["file_url"]))).body == data


async def test_ranges_tags_and_head(house: House, people: People) -> None:
    """Copies are served as files are: parts of them, 304 for who has them, headers alone."""
    row = await one_file(house, people.alice, "sample.opus", data_of("sample.opus"))
    path = path_of(row["playback_url"])
    whole = await house.stranger.get(path)
    assert whole.headers["etag"] == f'"{hashlib.sha256(whole.body).hexdigest()}"'
    assert whole.headers["cache-control"] == "private, max-age=3600"
    part = await house.stranger.send("GET", path, headers={"range": "bytes=100-199"})
    assert (part.status, part.body) == (206, whole.body[100:200])
    tag = {"if-none-match": whole.headers["etag"]}
    assert (await house.stranger.send("GET", path, headers=tag)).status == 304
    head = await house.stranger.send("HEAD", path)
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-length"] == str(len(whole.body))


async def test_a_text_preview_is_the_start_of_the_text(house: House, people: People) -> None:
    """Its first 20,000 characters, also right after the upload; it has a tag of its own."""
    text = "Grüße, Zürich! " * 3000
    rows = await send_files(people.alice, ("long.txt", text.encode()))
    path = path_of(rows["long.txt"]["preview_url"])
    answer = await house.stranger.get(path)
    assert answer.body.decode() == text[:20_000]
    tag = {"if-none-match": answer.headers["etag"]}
    assert (await house.stranger.send("GET", path, headers=tag)).status == 304
    head = await house.stranger.send("HEAD", path)
    assert (head.body, head.headers["content-length"]) == (b"", str(len(answer.body)))
    by_key = await people.alice.reader.get(
        f"/api/v1/attachments/{rows['long.txt']['uid']}/preview/"
    )
    assert by_key.body == answer.body


async def test_a_pdf_has_a_picture_and_a_text(house: House, people: People) -> None:
    """Its row links to the first page; `size=text` gives the text."""
    row = await one_file(house, people.alice, "sample.pdf", data_of("sample.pdf"))
    address = f"/api/v1/attachments/{row['uid']}/preview/"
    assert opened((await people.alice.reader.get(address)).body).size[1] == 512
    text = await people.alice.reader.get(address, {"size": "text"})
    assert b"Adobe Acrobat PDF Files" in text.body


# --- What has none --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("cut.png", data_of("sample.png")[:90]),
        ("cut.jpg", data_of("sample.jpg")[:300]),
        ("cut.pdf", data_of("sample.pdf")[:200]),
        ("cut.mp4", data_of("sample.mp4")[:400]),
        ("cut.docx", data_of("sample.docx")[:400]),
        ("cut.ogg", data_of("sample.ogg")[:60]),
        ("bomb.png", huge_png()),
    ],
)
async def test_a_damaged_file_has_no_preview_and_no_error(
    house: House, people: People, name: str, data: bytes
) -> None:
    """Nothing is offered after a look at it; before, a try is answered 404 and is the last."""
    rows = await send_files(people.alice, (name, data))
    row = rows[name]
    asked = row["preview_url"] or row["playback_url"]
    for _ in range(2):
        answer = await house.stranger.get(path_of(asked))
        assert answer.is_error(404, "no_preview"), answer.body[:200]
    shown = (await read_rows(people.alice, rows))[name]
    assert (shown["preview_url"], shown["playback_url"]) == (None, None)
    await examine_all(house, people.alice)
    shown = (await read_rows(people.alice, rows))[name]
    assert (shown["preview_url"], shown["playback_url"]) == (None, None)
    assert (await house.stranger.get(path_of(row["file_url"]))).body == data


async def test_what_was_tried_in_vain_is_not_tried_again(
    house: House, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that cannot be shown costs one look, however often it is asked for."""
    rows = await send_files(people.alice, ("cut.gif", data_of("sample.gif")[:20]))
    path = path_of(rows["cut.gif"]["preview_url"])
    assert (await house.stranger.get(path)).status == 404
    monkeypatch.setattr(service, "_make", None)
    for size in (512, 128):
        answer = await house.stranger.get(path.replace("/512.", f"/{size}."))
        assert answer.is_error(404, "no_preview")


@pytest.mark.parametrize("end", ["preview/513.webp", "preview/512.png", "preview/", "preview/../x"])
async def test_other_names_are_no_links(house: House, people: People, end: str) -> None:
    """Sizes and names are fixed: nobody fills the store by asking."""
    rows = await send_files(people.alice, ("a.jpg", photo()))
    folder = path_of(rows["a.jpg"]["file_url"]).rpartition("/")[0]
    assert (await house.stranger.get(f"{folder}/{end}")).is_error(404, "link_invalid")
    uid = rows["a.jpg"]["uid"]
    answer = await people.alice.get(f"/api/v1/attachments/{uid}/preview/", {"size": "513"})
    assert answer.is_error(400, "invalid")


async def test_a_zip_has_none(house: House, people: People) -> None:
    """What cannot be shown is 404 by link and by key."""
    row = await one_file(house, people.alice, "sample.zip", data_of("sample.zip"))
    folder = path_of(row["file_url"]).rpartition("/")[0]
    for end in ("preview/512.webp", "preview/text.txt", "playback/sample.m4a"):
        assert (await house.stranger.get(f"{folder}/{end}")).is_error(404, "no_preview"), end
    for end in ("preview", "playback"):
        answer = await people.alice.get(f"/api/v1/attachments/{row['uid']}/{end}/")
        assert answer.is_error(404, "no_preview")
        what = "playback copy" if end == "playback" else "preview"
        assert answer.json()["detail"] == f"There is no {what} of this file."


# --- Who may --------------------------------------------------------------------------------------


async def test_strangers_see_nothing(house: House, people: People) -> None:
    """By key: 404 for another agent's, 401 without one. By link: only with its signature."""
    row = await one_file(house, people.alice, "a.jpg", photo())
    address = f"/api/v1/attachments/{row['uid']}/preview/"
    for person in (people.bob, people.carol):
        assert (await person.get(address)).is_error(404, "not_found")
        playback = f"/api/v1/attachments/{row['uid']}/playback/"
        assert (await person.get(playback)).is_error(404, "not_found")
    assert (await house.stranger.get(address)).status == 401
    path = path_of(row["preview_url"])
    token = path.split("/")[3]
    flipped = token[:-1] + ("0" if token[-1] != "0" else "1")
    assert (await house.stranger.get(path.replace(token, flipped))).is_error(404, "link_invalid")
    house.clock.move(9 * 86400)
    try:
        assert (await house.stranger.get(path)).is_error(404, "link_invalid")
    finally:
        house.clock.move(-9 * 86400)


async def test_a_deleted_files_previews_are_gone(house: House, people: People) -> None:
    """Also those that were made before."""
    row = await one_file(house, people.alice, "a.jpg", photo())
    path = path_of(row["preview_url"])
    assert (await house.stranger.get(path)).status == 200
    now = house.clock()
    await house.run("UPDATE attachments SET deleted_at = $1 WHERE uid = $2", now, row["uid"])
    assert (await house.stranger.get(path)).is_error(404, "link_invalid")
    address = f"/api/v1/attachments/{row['uid']}/preview/"
    assert (await people.alice.get(address)).is_error(404, "not_found")


async def test_infected_and_blocked_files_have_none(house: House, people: People) -> None:
    """A preview shows what is in a file: what is not handed out is not shown either."""
    row = await one_file(house, people.alice, "a.jpg", photo(811, 400))
    path, address = path_of(row["preview_url"]), f"/api/v1/attachments/{row['uid']}/preview/"
    assert (await house.stranger.get(path)).status == 200
    await house.run("UPDATE blobs SET scan = 'infected' WHERE sha256 = $1", row["sha256"])
    assert (await house.stranger.get(path)).is_error(403, "infected")
    assert (await people.alice.get(address)).is_error(403, "infected")
    await house.run("UPDATE blobs SET scan = 'clean' WHERE sha256 = $1", row["sha256"])
    await house.run(
        "INSERT INTO quarantined_hashes (sha256, reason, created_at) VALUES ($1, 'test', 1)",
        row["sha256"],
    )
    assert (await house.stranger.get(path)).is_error(403, "quarantined")
    assert (await people.alice.get(address)).is_error(403, "quarantined")


# --- Made once ------------------------------------------------------------------------------------


async def test_two_at_once_make_it_once(house: House, people: People) -> None:
    """Ten requests for a thumbnail that is not there yet: one object, ten equal answers."""
    rows = await send_files(people.alice, ("a.jpg", photo(900, 700)))
    path = path_of(rows["a.jpg"]["preview_url"])
    answers = await asyncio.gather(*(house.stranger.get(path) for _ in range(10)))
    assert {answer.status for answer in answers} == {200}
    assert len({answer.body for answer in answers}) == 1
    agent = people.alice.access.agent_id
    assert len([key for key in house.objects() if key.startswith(f"derived/{agent}/")]) == 1


async def test_many_who_ask_for_a_text_have_it_looked_at_once(
    house: House, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that takes long to read is not read again for each of those who wait for it."""
    rows = await send_files(people.alice, ("a.txt", b"a text that many want"))
    examiner, n_looks = house.parts.examiner, 0
    assert examiner is not None
    examine = examiner.examine

    async def count(*args: Any, **options: Any) -> Any:
        nonlocal n_looks
        n_looks += 1
        return await examine(*args, **options)

    monkeypatch.setattr(examiner, "examine", count)
    path = path_of(rows["a.txt"]["preview_url"])
    answers = await asyncio.gather(*(house.stranger.get(path) for _ in range(10)))
    assert {answer.body for answer in answers} == {b"a text that many want"}
    assert n_looks <= 1 + 1  # the chore may have been at it already


async def test_of_two_processes_one_keeps_its_own(house: House, people: People) -> None:
    """Who comes second with the same thumbnail takes the first one's, and removes its object."""
    rows = await send_files(people.alice, ("a.jpg", photo(900, 701)))
    wanted, uid = wanted_thumbnail(512), rows["a.jpg"]["uid"]
    found = await service.find_by_link(house.parts, uid, wanted)
    assert found is not None
    assert house.parts.examiner is not None
    both = await asyncio.gather(
        *(service._make(house.parts, house.parts.examiner, found, wanted) for _ in range(2))
    )
    assert both[0].object_key == both[1].object_key
    agent = people.alice.access.agent_id
    made = [key for key in house.objects() if key.startswith(f"derived/{agent}/")]
    assert made == [both[0].object_key]


async def test_a_lost_thumbnail_is_made_again(house: House, people: People) -> None:
    """An object gone behind our back is no more than a picture that has to be drawn anew."""
    row = await one_file(house, people.alice, "a.jpg", photo(900, 702))
    path = path_of(row["preview_url"])
    before = await house.stranger.get(path)
    agent = people.alice.access.agent_id
    [(key,)] = await house.rows("SELECT object_key FROM derivatives WHERE agent_id = $1", agent)
    await house.parts.blobs.delete(key)
    after = await house.stranger.get(path)
    assert (after.status, after.body) == (200, before.body)
    [(anew,)] = await house.rows("SELECT object_key FROM derivatives WHERE agent_id = $1", agent)
    assert anew != key


async def test_lost_bytes_are_gone_and_not_written_down(house: House, people: People) -> None:
    """A file whose bytes are missing is 410 for its preview too, which works when they are back."""
    data = photo(900, 703)
    rows = await send_files(people.alice, ("a.jpg", data), ("a.txt", b"a note that is lost"))
    agent = people.alice.access.agent_id
    for (key,) in await house.rows("SELECT object_key FROM blobs WHERE agent_id = $1", agent):
        await house.parts.blobs.delete(key)
    for row in rows.values():
        assert (await house.stranger.get(path_of(row["preview_url"]))).is_error(410, "gone")
    assert await house.count("derivatives", "agent_id = $1", agent) == 0
    await send_files(people.alice, ("b.jpg", data))
    assert (await house.stranger.get(path_of(rows["a.jpg"]["preview_url"]))).status == 200


async def test_rows_from_before_facts_were_kept(house: House, people: People) -> None:
    """Once they are examined, they are as all others."""
    rows = await send_files(people.alice, ("old.jpg", photo(900, 704)))
    agent = people.alice.access.agent_id
    await house.run("UPDATE attachments SET facts = NULL WHERE agent_id = $1", agent)
    await house.run("UPDATE blobs SET facts = NULL WHERE agent_id = $1", agent)
    await house.run(
        "INSERT INTO blob_jobs (agent_id, blob_id, kind, attempts, not_before, created_at)"
        " SELECT agent_id, id, 'examine', 0, 0, 0 FROM blobs WHERE agent_id = $1"
        " ON CONFLICT (agent_id, blob_id, kind) DO NOTHING",
        agent,
    )
    await examine_all(house, people.alice)
    shown = (await read_rows(people.alice, rows))["old.jpg"]
    assert (shown["width"], shown["detected_mime_type"]) == (900, "image/jpeg")
    assert (await house.stranger.get(path_of(shown["preview_url"]))).status == 200
