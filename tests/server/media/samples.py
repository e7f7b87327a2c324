"""Files made for tests: pictures with orientation and place, documents, bombs, broken ones."""

from __future__ import annotations

import io
import random
import struct
import zipfile
import zlib
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pillow_heif
from PIL import Image, ImageDraw

ARROW_SIZE = (400, 200)
"""As a person sees it: wide, red at the left, blue at the right, the upper edge white."""
LATITUDE_TAG, GPS_TAG, ORIENTATION_TAG = 2, 0x8825, 0x0112
MAKER = "CameraMakerWord"

_BACK = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def arrow() -> Image.Image:
    """Draw the picture that shows when something was turned."""
    picture = Image.new("RGB", ARROW_SIZE, (230, 30, 30))
    draw = ImageDraw.Draw(picture)
    draw.rectangle((200, 0, 399, 199), fill=(30, 30, 230))
    draw.rectangle((0, 0, 399, 19), fill="white")
    return picture


def is_upright(picture: Image.Image) -> bool:
    """Tell whether the arrow is as it was drawn."""
    small = picture.convert("RGB").resize((40, 20))
    left, right, top = (small.getpixel(at) for at in ((5, 12), (35, 12), (20, 0)))
    assert isinstance(left, tuple)
    assert isinstance(right, tuple)
    assert isinstance(top, tuple)
    return left[0] > 150 > left[2] and right[2] > 150 > right[0] and min(top) > 150


def phone_photo(orientation: int, image_format: str = "JPEG") -> bytes:
    """Take the arrow as a phone does: turned, with a note how, where, and with what."""
    turn = _BACK[orientation]
    stored = arrow() if turn is None else arrow().transpose(turn)
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    exif[0x010F] = MAKER
    place = {1: "N", LATITUDE_TAG: (48.0, 12.0, 30.0), 3: "E", 4: (16.0, 22.0, 0.0)}
    exif.get_ifd(GPS_TAG).update(place)
    out = io.BytesIO()
    comment = {"comment": b"CommentWord"} if image_format == "JPEG" else {}
    xmp = {"xmp": b"<x>XmpWord</x>"} if image_format != "TIFF" else {}
    stored.save(out, image_format, exif=exif, **comment, **xmp)
    return out.getvalue()


def heic() -> bytes:
    """Make the arrow as an iPhone stores it."""
    out = io.BytesIO()
    exif = Image.Exif()
    exif[0x010F] = MAKER
    heif = pillow_heif.from_pillow(arrow())
    heif.save(out, quality=80, exif=exif.tobytes())
    return out.getvalue()


def picture(image_format: str, mode: str = "RGB", **options: Any) -> bytes:
    """Make the arrow in some format and mode."""
    out = io.BytesIO()
    arrow().convert(mode).save(out, image_format, **options)
    return out.getvalue()


def huge_png(width: int, height: int) -> bytes:
    """Make a PNG of so many pixels, all alike, in a few bytes for its size."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        checksum = zlib.crc32(kind + body)
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    packer = zlib.compressobj(9)
    rows = bytes((width + 7) // 8 + 1)
    body = b"".join(packer.compress(rows) for _ in range(min(height, 2000))) + packer.flush()
    start = b"\x89PNG\r\n\x1a\n"
    return start + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def pdf(*pages: str, box: str = "0 0 300 400", count: int | None = None) -> bytes:
    """Make a PDF with a line of text a page.

    Args:
        pages: The lines.
        box: The page's size, in points.
        count: How many pages it claims to have.
    """
    kids = " ".join(f"{4 + 2 * n} 0 R" for n in range(len(pages)))
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {count or len(pages)} >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for n, line in enumerate(pages):
        stream = f"BT /F1 24 Tf 40 300 Td ({line}) Tj ET"
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [{box}] /Contents {5 + 2 * n} 0 R"
            " /Resources << /Font << /F1 3 0 R >> >> >>"
        )
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
    out, offsets = b"%PDF-1.4\n", list[int]()
    for number, body in enumerate(objects, 1):
        offsets.append(len(out))
        out += f"{number} 0 obj\n{body}\nendobj\n".encode()
    table = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    size = len(objects) + 1
    return (
        out
        + (
            f"xref\n0 {size}\n0000000000 65535 f \n{table}"
            f"trailer << /Size {size} /Root 1 0 R >>\nstartxref\n{len(out)}\n%%EOF\n"
        ).encode()
    )


def archive(members: dict[str, str | bytes]) -> bytes:
    """Make a ZIP archive; `mimetype` goes in as it is, as OpenDocument wants it."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, body in members.items():
            kind = zipfile.ZIP_STORED if name == "mimetype" else zipfile.ZIP_DEFLATED
            packed.writestr(name, body, kind)
    return out.getvalue()


_W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'


def paragraph(text: str) -> str:
    """Write one paragraph as Word does."""
    return f'<w:p><w:r><w:t xml:space="preserve">{text}</w:t></w:r></w:p>'


def docx(body: str, **parts: str) -> bytes:
    """Make a Word document; parts are the bodies of `header1`, `footnotes` and the like."""
    members: dict[str, str | bytes] = {
        "word/document.xml": f"<?xml version='1.0'?><w:document {_W}><w:body>{body}</w:body>"
        "</w:document>"
    }
    for name, part in parts.items():
        members[f"word/{name}.xml"] = f"<w:part {_W}>{part}</w:part>"
    return archive(members)


def relations(*targets: tuple[str, str]) -> str:
    """Write a relations part: kinds and targets, with the ids rId1, rId2, …."""
    base = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    entries = "".join(
        f'<Relationship Id="rId{n}" Type="{base}/{kind}" Target="{target}"/>'
        for n, (kind, target) in enumerate(targets, 1)
    )
    namespace = "http://schemas.openxmlformats.org/package/2006/relationships"
    return f'<Relationships xmlns="{namespace}">{entries}</Relationships>'


def open_document(kind: str, body: str) -> bytes:
    """Make an OpenDocument file of a kind: text, spreadsheet or presentation."""
    base = "urn:oasis:names:tc:opendocument:xmlns"
    names = {"office": "office", "text": "text", "table": "table", "draw": "drawing"}
    spaces = " ".join(f'xmlns:{short}="{base}:{name}:1.0"' for short, name in names.items())
    return archive(
        {
            "mimetype": f"application/vnd.oasis.opendocument.{kind}",
            "content.xml": f"<office:document-content {spaces}><office:body><office:{kind}>{body}"
            f"</office:{kind}></office:body></office:document-content>",
        }
    )


def sound(path: Path, container: str, codec: str, *, seconds: float, rate: int = 8000) -> None:
    """Record a hiss."""
    with av.open(str(path), "w", format=container) as out:
        stream = out.add_stream(codec, rate=rate, layout="mono")
        chance = random.Random(7)
        left, at = int(seconds * rate), 0
        while left > 0:
            n = min(left, 160)
            frame = av.AudioFrame(format="s16", layout="mono", samples=n)
            frame.planes[0].update(
                b"".join(struct.pack("<h", chance.randint(-3000, 3000)) for _ in range(n)).ljust(
                    frame.planes[0].buffer_size, b"\0"
                )
            )
            frame.sample_rate, frame.pts, frame.time_base = rate, at, Fraction(1, rate)
            out.mux(stream.encode(frame))
            left, at = left - n, at + n
        out.mux(stream.encode(None))


def video(
    path: Path,
    container: str,
    codec: str,
    *,
    size: tuple[int, int] = (176, 144),
    dark_frames: int = 0,
    frames: int = 20,
    with_sound: str | None = None,
    rotation: int = 0,
    pixel_ratio: Fraction | None = None,
) -> None:
    """Film the arrow at 10 frames a second, after some darkness."""
    with av.open(str(path), "w", format=container) as out:
        stream = out.add_stream(codec, rate=10)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        if rotation:
            stream.set_display_rotation(rotation)
        if pixel_ratio:
            stream.sample_aspect_ratio = pixel_ratio
        voice = out.add_stream(with_sound, rate=8000, layout="mono") if with_sound else None
        for n in range(frames):
            still = Image.new("RGB", size) if n < dark_frames else arrow().resize(size)
            frame = av.VideoFrame.from_image(still)
            frame.pts, frame.time_base = n, Fraction(1, 10)
            out.mux(stream.encode(frame))
            if voice:
                for part in range(5):
                    silence = av.AudioFrame(format="s16", layout="mono", samples=160)
                    silence.planes[0].update(bytes(silence.planes[0].buffer_size))
                    silence.sample_rate, silence.pts = 8000, n * 800 + part * 160
                    silence.time_base = Fraction(1, 8000)
                    out.mux(voice.encode(silence))
        out.mux(stream.encode(None))
        if voice:
            out.mux(voice.encode(None))
