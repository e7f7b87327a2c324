"""Sound and video: facts, frames, copies that browsers play."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import pytest

from tests.server.media import samples
from tests.server.media.conftest import FILES, Desk

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("name", "size", "seconds"),
    [
        ("sample.3gp", (504, 288), 5.574),
        ("sample.amr", (None, None), 0.84),
        ("sample.m4a", (None, None), 0.811),
        ("sample.mov", (268, 156), 0.099),
        ("sample.mp3", (None, None), 0.767),
        ("sample.mp4", (640, 356), 0.067),
        ("sample.oga", (None, None), 0.697),
        ("sample.ogg", (None, None), 0.767),
        ("sample.opus", (None, None), 2.92),
        ("sample.wav", (None, None), 1.225),
        ("sample.webm", (640, 356), 0.072),
    ],
)
async def test_real_recordings_tell_how_long_and_large_they_are(
    desk: Desk, name: str, size: tuple[int | None, int | None], seconds: float
) -> None:
    """The facts of the files that phones and browsers made."""
    facts = await desk.examine((FILES / name).read_bytes(), name)
    assert (facts.width, facts.height, facts.seconds) == (*size, seconds)
    assert facts.has_preview == (size != (None, None))
    is_old = name.rpartition(".")[2] in ("3gp", "amr", "oga", "ogg", "opus")
    assert facts.has_playback == is_old
    assert facts.note is None


@pytest.mark.parametrize("name", ["sample.amr", "sample.oga", "sample.ogg", "sample.opus"])
async def test_voice_notes_become_m4a(desk: Desk, name: str) -> None:
    """The copy is AAC, as long as the original, with its index first, and holds no titles."""
    body = (FILES / name).read_bytes()
    facts = await desk.examine(body, name)
    made = await desk.playback(body)
    assert made
    assert made.mime_type == "audio/mp4"
    assert facts.seconds
    assert made.seconds == pytest.approx(facts.seconds, abs=0.05)
    copy = desk.out.read_bytes()
    assert copy[4:11] == b"ftypM4A"
    assert copy.index(b"moov") < copy.index(b"mdat")
    with av.open(str(desk.out)) as opened:
        stream = opened.streams.audio[0]
        assert stream.codec_context.name == "aac"
        assert stream.codec_context.sample_rate >= 24_000
        assert sum(frame.samples for frame in opened.decode(audio=0)) > 0
        assert set(opened.metadata) <= {
            "major_brand",
            "minor_version",
            "compatible_brands",
            "encoder",
        }


@pytest.mark.slow
async def test_a_real_clip_of_an_old_phone_becomes_an_mp4(desk: Desk) -> None:
    """As long and as large as it was, in a codec that browsers play."""
    made = await desk.playback((FILES / "sample.3gp").read_bytes())
    assert made
    assert made.mime_type == "video/mp4"
    with av.open(str(desk.out)) as opened:
        video = opened.streams.video[0]
        assert video.codec_context.name == "h264"
        assert (video.width, video.height) == (504, 288)  # its points are no squares
        assert sum(1 for _ in opened.decode(video=0)) > 50
    assert await desk.thumbnail((FILES / "sample.3gp").read_bytes())


@pytest.mark.parametrize("codec", ["h263", "libx264"])
async def test_a_video_of_an_old_phone_becomes_an_mp4(
    desk: Desk, tmp_path: Path, codec: str
) -> None:
    """H.263 is coded anew, H.264 copied, upright as it was; AMR becomes AAC."""
    path = tmp_path / "clip.3gp"
    samples.video(path, "3gp", codec, with_sound="libopencore_amrnb", rotation=90)
    facts = await desk.examine(path.read_bytes())
    assert facts.has_playback
    made = await desk.playback(path.read_bytes())
    assert made
    assert made.mime_type == "video/mp4"
    assert made.seconds == pytest.approx(2.0, abs=0.15)
    with av.open(str(desk.out)) as opened:
        assert opened.streams.video[0].codec_context.name == "h264"
        assert opened.streams.audio[0].codec_context.name == "aac"
        frames = list(opened.decode(video=0))
        assert [frame.rotation for frame in frames] == [90] * 20


@pytest.mark.parametrize("rotation", [0, 90])
async def test_a_copy_is_as_wide_as_its_original_is_shown(
    desk: Desk, tmp_path: Path, rotation: int
) -> None:
    """Pixels that are not square are made so: the copy has the size that the row tells."""
    path = tmp_path / "clip.3gp"
    samples.video(path, "3gp", "h263", rotation=rotation, pixel_ratio=Fraction(12, 11))
    facts = await desk.examine(path.read_bytes())
    assert await desk.playback(path.read_bytes())
    with av.open(str(desk.out)) as opened:
        video = opened.streams.video[0]
        assert video.sample_aspect_ratio in (None, 1)
        assert (video.width, video.height) == (192, 144)
    shown = (144, 192) if rotation else (192, 144)
    assert (facts.width, facts.height) == shown


async def test_a_3gp_with_sound_alone_becomes_an_mp4_with_sound_alone(
    desk: Desk, tmp_path: Path
) -> None:
    """Some phones write voice notes as 3GP."""
    path = tmp_path / "voice.3gp"
    samples.sound(path, "3gp", "libopencore_amrnb", seconds=1)
    facts = await desk.examine(path.read_bytes())
    assert (facts.has_preview, facts.has_playback, facts.width) == (False, True, None)
    assert await desk.thumbnail(path.read_bytes()) is None
    assert await desk.playback(path.read_bytes())
    with av.open(str(desk.out)) as opened:
        assert not opened.streams.video
        assert opened.streams.audio[0].codec_context.name == "aac"


async def test_a_frame_after_a_dark_beginning_is_shown(desk: Desk, tmp_path: Path) -> None:
    """A film that fades in is not a black rectangle."""
    path = tmp_path / "film.mp4"
    samples.video(path, "mp4", "libx264", dark_frames=8, frames=30)
    assert await desk.thumbnail(path.read_bytes())
    assert samples.is_upright(desk.picture())


async def test_a_video_that_is_dark_throughout_is_shown_as_it_is(
    desk: Desk, tmp_path: Path
) -> None:
    """Looking for something better ends."""
    path = tmp_path / "night.mp4"
    samples.video(path, "mp4", "libx264", dark_frames=30, frames=30)
    assert await desk.thumbnail(path.read_bytes())


async def test_a_video_that_was_filmed_upright_is_shown_upright(desk: Desk, tmp_path: Path) -> None:
    """The display matrix counts, for the size and for the frame (Chromium shows the same)."""
    path = tmp_path / "clip.mp4"
    samples.video(path, "mp4", "libx264", size=(200, 400), rotation=90)
    facts = await desk.examine(path.read_bytes())
    assert (facts.width, facts.height) == (400, 200)
    assert await desk.thumbnail(path.read_bytes())
    picture = desk.picture()
    assert picture.size == (400, 200)
    left, upper, lower = (picture.getpixel(at) for at in ((10, 100), (200, 40), (200, 160)))
    assert min(left) > 200  # the white upper edge, turned counter-clockwise
    assert upper[2] > 150 > upper[0]
    assert lower[0] > 150 > lower[2]


@pytest.mark.parametrize(
    ("container", "codec"), [("webm", "libvpx"), ("mov", "libx265"), ("matroska", "libx264")]
)
async def test_other_videos_have_a_frame_too(
    desk: Desk, tmp_path: Path, container: str, codec: str
) -> None:
    """What iPhones (HEVC), browsers (VP8) and recorders write."""
    path = tmp_path / "clip"
    samples.video(path, container, codec)
    facts = await desk.examine(path.read_bytes())
    assert (facts.width, facts.height, facts.seconds) == (176, 144, pytest.approx(2.0, abs=0.1))
    assert await desk.thumbnail(path.read_bytes())
    assert samples.is_upright(desk.picture())


async def test_sound_that_does_not_say_how_long_it_is_is_measured(
    desk: Desk, tmp_path: Path
) -> None:
    """AAC and AMR from a recorder have no header for it."""
    for container, codec in (("adts", "aac"), ("amr", "libopencore_amrnb")):
        path = tmp_path / container
        samples.sound(path, container, codec, seconds=2)
        facts = await desk.examine(path.read_bytes())
        assert facts.seconds == pytest.approx(2.0, abs=0.2)


async def test_a_recording_that_is_cut_off_plays_as_far_as_it_goes(desk: Desk) -> None:
    """Half a voice note is better than none."""
    body = (FILES / "sample.opus").read_bytes()
    made = await desk.playback(body[: len(body) // 2])
    assert made
    assert made.seconds
    assert 0.5 < made.seconds < 2.5
