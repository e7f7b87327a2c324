"""Pictures, by Pillow and pillow-heif: their size, small ones of them, copies that browsers show.

Nothing is decoded before its header has said how large it is. What is written is made of pixels
alone: place, camera, comments and colour profiles stay behind (colours are turned to sRGB).
"""

# Pillow and pillow-heif leave some arguments without types.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import io
import os
from typing import Any, Final, cast

from PIL import (
    AvifImagePlugin,
    Image,
    ImageCms,
    ImageFile,
    TiffImagePlugin,
    WebPImagePlugin,
)

from agentsight.server.media.model import MAX_PIXELS, PREVIEW_MIME_TYPE, Examined, Made
from agentsight.server.media.readers.errors import NotReadable

# Only the reader that goes with the type: the others never see the bytes.
_FORMATS: Final = {
    "image/avif": ("AVIF",),
    "image/bmp": ("BMP",),
    "image/gif": ("GIF",),
    "image/heic": ("HEIF",),
    "image/heif": ("HEIF", "AVIF"),
    "image/jpeg": ("JPEG",),
    "image/png": ("PNG",),
    "image/tiff": ("TIFF",),
    "image/webp": ("WEBP",),
}
_PROOF_EDGE: Final = 64
_MAX_COPY_EDGE: Final = 8192
_MAX_FRAMES: Final = 1000
_ORIENTATION: Final = 0x0112  # EXIF 2.32, tag 274
_SIDEWAYS: Final = (5, 6, 7, 8)
_WEBP_QUALITY: Final = 80
_JPEG_QUALITY: Final = 90

# Pillow would load them when it first meets such a picture: in each worker anew.
Image.preinit()
_PLUGINS: Final = (AvifImagePlugin, TiffImagePlugin, WebPImagePlugin)

Image.MAX_IMAGE_PIXELS = None  # `_open` is stricter, and says so in its own words
ImageFile.LOAD_TRUNCATED_IMAGES = False


def examine(path: str, mime_type: str) -> Examined:
    """Tell a picture's size as it is shown, and prove that it can be drawn."""
    with _open(path, mime_type, check_size=False) as picture:
        width, height = _shown_size(picture)
        pages = _n_frames(picture) if mime_type == "image/tiff" else None
        facts = Examined(width=width, height=height, pages=pages)
    try:
        with _open(path, mime_type) as picture:
            _reduce(picture, _PROOF_EDGE)
    except NotReadable as exc:
        return _with_note(facts, str(exc))
    except MemoryError:
        raise
    except Exception as exc:  # noqa: BLE001 - whatever a codec raises: the facts above still hold
        return _with_note(facts, f"not readable as {mime_type}: {type(exc).__name__}")
    has_copy = mime_type in ("image/heic", "image/heif", "image/tiff")
    return Examined(
        width=width, height=height, pages=pages, has_preview=True, has_playback=has_copy
    )


def thumbnail(path: str, mime_type: str, max_edge: int, out: str) -> Made:
    """Write a small picture as WebP; transparency is kept."""
    with _open(path, mime_type) as picture:
        return write_webp(_reduce(picture, max_edge), out)


def jpeg_copy(path: str, mime_type: str, out: str) -> Made:
    """Write a picture as JPEG in its own size, transparency on white."""
    with _open(path, mime_type) as picture:
        copy = _reduce(picture, _MAX_COPY_EDGE)
    if copy.mode == "RGBA":
        white = Image.new("RGB", copy.size, "white")
        white.paste(copy, mask=copy.getchannel("A"))
        copy = white
    copy.save(out, "JPEG", quality=_JPEG_QUALITY, optimize=True, progressive=True)
    return _made(copy, "image/jpeg", out)


def write_webp(picture: Image.Image, out: str) -> Made:
    """Write a picture that holds nothing but pixels."""
    picture.save(out, "WEBP", quality=_WEBP_QUALITY, method=4)
    return _made(picture, PREVIEW_MIME_TYPE, out)


def _made(picture: Image.Image, mime_type: str, out: str) -> Made:
    return Made(
        mime_type=mime_type,
        size_bytes=os.stat(out).st_size,
        width=picture.width,
        height=picture.height,
    )


def _open(path: str, mime_type: str, *, check_size: bool = True) -> Image.Image:
    formats = _FORMATS[mime_type]
    if "HEIF" in formats:
        from agentsight.server.media.readers import heif

        heif.register()
    try:
        picture = Image.open(path, formats=formats)
    except (OSError, SyntaxError, ValueError) as exc:
        raise NotReadable(f"not readable as {mime_type}: {type(exc).__name__}") from exc
    if check_size and picture.width * picture.height > MAX_PIXELS:
        size = f"{picture.width} × {picture.height}"
        picture.close()
        raise NotReadable(f"{size} pixels are more than {MAX_PIXELS:,}")
    return picture


def _reduce(picture: Image.Image, max_edge: int) -> Image.Image:
    """Decode to at most `max_edge`, upright, in sRGB, RGB or RGBA, without anything but pixels."""
    picture.draft("RGB", (max_edge, max_edge))  # JPEG decodes at 1/2, 1/4 or 1/8 at once
    orientation = _orientation(picture)
    profile = picture.info.get("icc_profile")
    plain = _to_plain_mode(picture)
    plain.thumbnail((max_edge, max_edge), Image.Resampling.LANCZOS, reducing_gap=3.0)
    plain = _to_srgb(plain, profile)
    upright = _turn(plain, orientation)
    upright.info = {}
    upright.getexif().clear()
    return upright


def _to_plain_mode(picture: Image.Image) -> Image.Image:
    """Turn palettes, bits and deep greys into what scales well."""
    mode = picture.mode
    if mode in ("RGB", "RGBA", "CMYK", "L"):
        if mode != "RGBA" and "transparency" in picture.info:
            return picture.convert("RGBA")
        picture.load()
        return picture
    if mode in ("I", "F") or mode.startswith("I;16"):
        return _deep_grey(picture)
    has_alpha = mode in ("LA", "PA", "La", "RGBa") or "transparency" in picture.info
    return picture.convert("RGBA" if has_alpha else "RGB")


def _deep_grey(picture: Image.Image) -> Image.Image:
    """Scale 16 and 32 bits to 8: `convert` would cut everything over 255 to white."""
    grey = picture.convert("F")
    low, high = grey.getextrema()
    assert isinstance(low, float)
    assert isinstance(high, float)
    if picture.mode.startswith("I;16"):
        low, high = 0.0, 65535.0
    scale = 255.0 / (high - low) if high > low else 0.0
    return grey.point(lambda value: value * scale - low * scale).convert("L")


def _to_srgb(picture: Image.Image, profile: object) -> Image.Image:
    """Turn colours to sRGB, by the picture's own profile where it has a usable one."""
    wanted = "RGBA" if picture.mode == "RGBA" else "RGB"
    if isinstance(profile, bytes) and profile and picture.mode in ("RGB", "RGBA", "CMYK"):
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            srgb = cast("Any", ImageCms.createProfile("sRGB"))
            turned = ImageCms.profileToProfile(picture, source, srgb, outputMode=wanted)
        except (ImageCms.PyCMSError, OSError, ValueError):
            turned = None  # a profile for other colours than these: the plain conversion is near
        if turned is not None:
            return turned
    return picture if picture.mode == wanted else picture.convert(wanted)


_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _turn(picture: Image.Image, orientation: int) -> Image.Image:
    turn = _TURNS.get(orientation)
    return picture if turn is None else picture.transpose(turn)


def _orientation(picture: Image.Image) -> int:
    """Read the EXIF orientation; 1 where there is none or it makes no sense.

    TIFF (`TiffImageFile.load_end`) and HEIF (libheif) stand upright already when they are decoded.
    """
    if picture.format in ("TIFF", "HEIF"):
        return 1
    try:
        value = picture.getexif().get(_ORIENTATION, 1)
    except Exception:  # noqa: BLE001 - damaged EXIF is no reason not to show the picture
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _shown_size(picture: Image.Image) -> tuple[int, int]:
    width, height = picture.size
    if width * height > MAX_PIXELS and picture.format == "PNG":
        return width, height  # Pillow decodes a PNG to look for EXIF behind its pixels
    return (height, width) if _orientation(picture) in _SIDEWAYS else (width, height)


def _n_frames(picture: Image.Image) -> int:
    """Count the pages of a TIFF; not for ever, where they form a ring."""
    n_frames = 1
    try:
        while n_frames < _MAX_FRAMES:
            picture.seek(n_frames)
            n_frames += 1
    except (EOFError, OSError, ValueError, SyntaxError):
        pass
    return n_frames


def _with_note(facts: Examined, note: str) -> Examined:
    return Examined(width=facts.width, height=facts.height, pages=facts.pages, note=note)
