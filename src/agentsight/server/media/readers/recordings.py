"""Sound and video, by PyAV: how long, how large, a frame to show.

The demuxer is named by the detected type and never guessed by the library: some of those it knows
are playlists, which open other files and addresses.
"""

# PyAV's own types leave parameters of its classes open, so that members of these count as unknown.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from fractions import Fraction
from typing import Final, cast

import av
import av.error
from av.container import InputContainer
from av.stream import Disposition
from av.subtitles.stream import SubtitleStream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from PIL import Image, ImageStat

from agentsight.server.media import kinds
from agentsight.server.media.model import MAX_PIXELS, MAX_SECONDS, Examined, Made
from agentsight.server.media.readers.errors import NotReadable
from agentsight.server.media.readers.pictures import write_webp

# PyAV would load it when it first opens a file: in each worker anew.
_PLUGINS: Final = (SubtitleStream,)
_DEMUXERS: Final = {
    "audio/aac": "aac",
    "audio/amr": "amr",
    "audio/flac": "flac",
    "audio/mp4": "mov",
    "audio/mpeg": "mp3",
    "audio/ogg": "ogg",
    "audio/wav": "wav",
    "video/3gpp": "mov",
    "video/3gpp2": "mov",
    "video/mp4": "mov",
    "video/ogg": "ogg",
    "video/quicktime": "mov",
    "video/webm": "matroska",
    "video/x-matroska": "matroska",
    "video/x-msvideo": "avi",
}
_GUESSED: Final = frozenset({"audio/aac", "audio/amr"})
"""Nothing in these says how long they are: FFmpeg divides their size by the first bit rate."""
_OTHER_MOMENTS_S: Final = (1.0, 3.0, 10.0)
_FLAT: Final = 8
"""Deviation of brightness, of 255, below which a frame is taken for a fade-in: black, or white."""
_MAX_PLAUSIBLE_S: Final = 10 * 365 * 24 * 3600
_MAX_PACKETS_FOR_A_FRAME: Final = 2000
_MAX_FRAMES_ON_THE_WAY: Final = 300
"""From the key frame before a moment to the moment."""


def open_recording(path: str, mime_type: str) -> InputContainer:
    """Open a file by the demuxer that its type names; it may open no other file."""
    try:
        return av.open(
            path,
            format=_DEMUXERS[mime_type],
            container_options={"protocol_whitelist": "file"},
            metadata_errors="replace",
        )
    except av.error.FFmpegError as exc:
        raise NotReadable(f"not readable as {mime_type}: {type(exc).__name__}") from exc


def video_of(recording: InputContainer) -> VideoStream | None:
    """Return the moving pictures; a cover that is attached to music is none."""
    for stream in recording.streams.video:
        if stream.codec_context and not stream.disposition & Disposition.attached_pic:
            stream.thread_type = "NONE"  # one frame is not worth the threads' memory
            return stream
    return None


def examine(path: str, mime_type: str, end_at: float) -> Examined:
    """Tell length and size, and prove that a frame can be drawn, or sound decoded."""
    width = height = None
    has_preview = has_sound = False
    note: str | None = None
    with open_recording(path, mime_type) as recording:
        seconds = _seconds(recording)
        video = video_of(recording) if mime_type in kinds.VIDEOS else None
        has_sound = bool(recording.streams.audio)
        try:
            if video:
                frame = _first_frame(recording, video)
                width, height = _shown_size(frame, video)
                has_preview = True
            elif has_sound:
                has_sound = next(recording.decode(audio=0), None) is not None
        except (av.error.FFmpegError, NotReadable, ValueError) as exc:
            has_sound = has_sound and video is not None
            note = str(exc) if isinstance(exc, NotReadable) else type(exc).__name__
    if seconds is None or mime_type in _GUESSED:
        seconds = _measure(path, mime_type, end_at)
    is_short = seconds is not None and seconds <= MAX_SECONDS
    can_copy = is_short and (has_preview or (has_sound and note is None))
    return Examined(
        width=width,
        height=height,
        seconds=seconds,
        has_preview=has_preview,
        has_playback=can_copy and kinds.can_play(mime_type) is not None,
        note=note,
    )


def thumbnail(path: str, mime_type: str, max_edge: int, out: str) -> Made:
    """Write a frame near the beginning; a later one where that shows nothing."""
    with open_recording(path, mime_type) as recording:
        video = video_of(recording)
        if video is None:
            raise NotReadable("there is no picture in it, only sound")
        best = _picture(_first_frame(recording, video), video, max_edge)
        contrast = _contrast(best)
        for moment_s in _OTHER_MOMENTS_S:
            if contrast >= _FLAT:
                break
            frame = _frame_at(recording, video, moment_s)
            other = _picture(frame, video, max_edge) if frame else None
            if other and _contrast(other) > contrast:
                best, contrast = other, _contrast(other)
    return write_webp(best, out)


def plausible_seconds(seconds: float) -> float | None:
    """Return a length rounded to milliseconds; None for what no clock shows."""
    if not math.isfinite(seconds) or not 0 < seconds < _MAX_PLAUSIBLE_S:
        return None
    return round(seconds, 3)


def _seconds(recording: InputContainer) -> float | None:
    return plausible_seconds((recording.duration or 0) / 1_000_000)


def _measure(path: str, mime_type: str, end_at: float) -> float | None:
    """Walk the packets of a file whose header does not tell how long it is."""
    longest = Fraction(0)
    first: Fraction | None = None
    with open_recording(path, mime_type) as recording:
        try:
            for packet in recording.demux():
                if packet.pts is not None and packet.time_base:
                    start = packet.pts * packet.time_base
                    first = start if first is None else min(first, start)
                    longest = max(longest, start + (packet.duration or 0) * packet.time_base)
                if time.monotonic() > end_at:
                    return None
        except av.error.FFmpegError:
            pass  # cut off: as long as what is there
    return plausible_seconds(float(longest - (first or 0)))


def _frames(recording: InputContainer, video: VideoStream) -> Iterator[VideoFrame]:
    """Decode from where the recording stands; not for ever where nothing comes of it."""
    context = video.codec_context
    if context.width * context.height > MAX_PIXELS:
        raise NotReadable(f"{context.width} × {context.height} pixels are more than {MAX_PIXELS:,}")
    for number, packet in enumerate(recording.demux(video)):
        if number > _MAX_PACKETS_FOR_A_FRAME:
            return
        yield from packet.decode()


def _first_frame(recording: InputContainer, video: VideoStream) -> VideoFrame:
    for frame in _frames(recording, video):
        return frame
    raise NotReadable("no frame can be decoded")


def _frame_at(recording: InputContainer, video: VideoStream, moment_s: float) -> VideoFrame | None:
    """Return the first frame from a moment on that is cheap to reach; None when there is none."""
    try:
        recording.seek(int(moment_s * 1_000_000))
        for number, frame in enumerate(_frames(recording, video)):
            if frame.pts is None or frame.time >= moment_s or number > _MAX_FRAMES_ON_THE_WAY:
                return frame
    except av.error.FFmpegError:
        pass
    return None


def _shown_size(frame: VideoFrame, video: VideoStream) -> tuple[int, int]:
    """Return width and height with square pixels, upright."""
    width, height = square_width(frame.width, video), frame.height
    return (height, width) if frame.rotation % 180 else (width, height)


def square_width(width: int, video: VideoStream) -> int:
    """Return how many square pixels a line of a video is wide."""
    ratio = video.sample_aspect_ratio
    return max(1, round(width * ratio)) if ratio and Fraction(1, 10) <= ratio <= 10 else width


def _picture(frame: VideoFrame, video: VideoStream, max_edge: int) -> Image.Image:
    """Scale a frame while its colours are turned to RGB, and set it upright."""
    width, height = _shown_size(frame, video)
    scale = min(1.0, max_edge / max(width, height))
    width, height = max(1, round(width * scale)), max(1, round(height * scale))
    if frame.rotation % 180:
        width, height = height, width
    picture = cast("Image.Image", frame.to_image(width=width, height=height))
    # `rotation` is counter-clockwise, as is `Image.rotate`.
    return picture.rotate(frame.rotation, expand=True) if frame.rotation else picture


def _contrast(picture: Image.Image) -> float:
    return ImageStat.Stat(picture.convert("L").resize((16, 16))).stddev[0]
