"""Copies of recordings that browsers play, by PyAV: sound as AAC in M4A, phone videos as MP4.

Titles, places and names in the original are not copied. The index stands first, so that a player
can begin before it has everything.
"""

# PyAV's own types leave parameters of its classes open, so that members of these count as unknown.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import contextlib
import os
import time
from fractions import Fraction
from typing import Any, Final

import av
import av.error
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from agentsight.server.media import kinds
from agentsight.server.media.model import MAX_SECONDS, Made
from agentsight.server.media.readers.errors import NotReadable
from agentsight.server.media.readers.recordings import (
    open_recording,
    plausible_seconds,
    square_width,
    video_of,
)

_MIN_RATE: Final = 24_000
"""Players on phones are not sure to take AAC below that; AMR comes with 8,000 or 16,000."""
_MAX_RATE: Final = 48_000
_BIT_RATES: Final = {"mono": 64_000, "stereo": 128_000}
_MAX_CODED_EDGE: Final = 1280
"""Phones that wrote H.263 or MPEG-4 made at most 720 × 576; larger is not coded anew here."""


def transcode(path: str, mime_type: str, out: str, end_at: float) -> Made:
    """Write the copy that `kinds.can_play` names for this type."""
    extension = kinds.can_play(mime_type)
    assert extension
    with open_recording(path, mime_type) as source:
        video = video_of(source) if extension == "mp4" else None
        sound = source.streams.audio[0] if source.streams.audio else None
        try:
            container = "mp4" if extension == "mp4" else "ipod"  # FFmpeg's name for M4A
            with av.open(out, "w", format=container, options={"movflags": "+faststart"}) as copy:
                seconds = _copy(source, copy, sound, video, end_at)
        except (av.error.FFmpegError, ValueError) as exc:
            raise NotReadable(f"cannot be copied: {type(exc).__name__}") from exc
        return Made(
            mime_type=kinds.PLAYBACK_MIME_TYPES[extension],
            size_bytes=os.stat(out).st_size,
            seconds=plausible_seconds(seconds),
        )


def _copy(
    source: InputContainer,
    copy: OutputContainer,
    sound: AudioStream | None,
    video: VideoStream | None,
    end_at: float,
) -> float:
    """Write all packets that can be decoded; return how many seconds they last."""
    writers: dict[int, _Sound | _CopiedVideo | _CodedVideo] = {}
    if sound:
        writers[sound.index] = _Sound(sound, copy)
    if video:
        is_h264 = video.codec_context.name == "h264"
        writers[video.index] = (_CopiedVideo if is_h264 else _CodedVideo)(video, copy)
    if not writers:
        raise NotReadable("there is neither sound nor picture in it")
    streams = [stream for stream in (sound, video) if stream]
    # Damaged at some point: what came before it still plays.
    with contextlib.suppress(av.error.InvalidDataError, av.error.EOFError):
        for packet in source.demux(streams):
            if packet.size:
                writers[packet.stream.index].write(packet)
            if max(writer.seconds for writer in writers.values()) > MAX_SECONDS:
                raise NotReadable(f"longer than {MAX_SECONDS // 3600} hours")
            if time.monotonic() > end_at:
                raise NotReadable("takes too long to be copied")
    for writer in writers.values():
        writer.finish()
    seconds = max(writer.seconds for writer in writers.values())
    if not seconds:
        raise NotReadable("nothing in it can be decoded")
    return seconds


class _Sound:
    """Sound, coded anew as AAC."""

    def __init__(self, source: AudioStream, copy: OutputContainer) -> None:
        layout = "mono" if source.codec_context.channels == 1 else "stereo"
        rate = min(max(source.codec_context.sample_rate, _MIN_RATE), _MAX_RATE)
        self._source = source
        self._copy = copy
        self._rate = rate
        self._stream = copy.add_stream("aac", rate=rate, layout=layout, bit_rate=_BIT_RATES[layout])
        self._resampler = AudioResampler(format="fltp", layout=layout, rate=rate)
        self._n_samples = 0

    @property
    def seconds(self) -> float:
        return self._n_samples / self._rate

    def write(self, packet: Packet[Any] | None) -> None:
        try:
            frames = self._source.codec_context.decode(packet)
        except av.error.InvalidDataError:
            return  # one damaged packet is a click, not the end
        for frame in frames:
            frame.pts = None  # the samples count: times in damaged files run backwards
            self._encode(self._resampler.resample(frame))

    def _encode(self, frames: list[av.AudioFrame]) -> None:
        for frame in frames:
            frame.pts = self._n_samples
            frame.time_base = Fraction(1, self._rate)
            self._n_samples += frame.samples
            self._copy.mux(self._stream.encode(frame))

    def finish(self) -> None:
        self.write(None)
        if self._n_samples:
            self._encode(self._resampler.resample(None))
        self._copy.mux(self._stream.encode(None))


class _CopiedVideo:
    """Pictures that browsers decode as they are."""

    def __init__(self, source: VideoStream, copy: OutputContainer) -> None:
        self._stream = copy.add_stream_from_template(source)
        self._copy = copy
        self.seconds = 0.0

    def write(self, packet: Packet[Any]) -> None:
        if packet.dts is None or packet.pts is None:
            return
        end = (packet.pts + (packet.duration or 0)) * packet.time_base
        self.seconds = max(self.seconds, float(end))
        packet.stream = self._stream
        self._copy.mux(packet)

    def finish(self) -> None:
        """Nothing waits here."""


class _CodedVideo:
    """Pictures that were never coded for browsers, as H.264."""

    def __init__(self, source: VideoStream, copy: OutputContainer) -> None:
        context = source.codec_context
        # In square pixels: H.263 has few sizes, and says how wide its points are to be shown.
        width = square_width(context.width, source)
        if max(width, context.height) > _MAX_CODED_EDGE:
            raise NotReadable(f"{width} × {context.height} is too large to be coded anew")
        self._source = source
        self._copy = copy
        self._width, self._height = max(2, width // 2 * 2), max(2, context.height // 2 * 2)
        options = {"preset": "veryfast", "crf": "24"}
        self._stream = copy.add_stream("libx264", rate=source.average_rate, options=options)
        self._stream.width, self._stream.height = self._width, self._height
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.thread_count = 1
        self._stream.codec_context.time_base = source.time_base or Fraction(1, 1000)
        self._last_pts = -1
        self.seconds = 0.0

    def write(self, packet: Packet[Any] | None) -> None:
        try:
            frames = self._source.codec_context.decode(packet)
        except av.error.InvalidDataError:
            return
        for frame in frames:
            if frame.pts is None or frame.pts <= self._last_pts:
                continue
            if self._last_pts < 0 and frame.rotation:
                self._stream.set_display_rotation(frame.rotation)
            self._last_pts = frame.pts
            self.seconds = frame.time or self.seconds
            picture = frame.reformat(self._width, self._height, "yuv420p")
            picture.pict_type = 0  # the encoder chooses anew
            self._copy.mux(self._stream.encode(picture))

    def finish(self) -> None:
        self.write(None)
        self._copy.mux(self._stream.encode(None))
