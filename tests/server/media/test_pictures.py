"""Thumbnails of pictures and copies for browsers: upright, sharp enough, and nothing but pixels."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from tests.server.media import samples
from tests.server.media.conftest import FILES, Desk

pytestmark = pytest.mark.anyio


@pytest.mark.slow
@pytest.mark.parametrize("image_format", ["JPEG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
async def test_a_photo_stands_upright_however_the_phone_was_held(
    desk: Desk, orientation: int, image_format: str
) -> None:
    """Size and thumbnail are those that a person sees, for each of EXIF's orientations."""
    photo = samples.phone_photo(orientation, image_format)
    facts = await desk.examine(photo, "photo.jpg")
    assert (facts.width, facts.height) == samples.ARROW_SIZE
    made = await desk.thumbnail(photo, 128)
    assert made
    assert (made.width, made.height) == (128, 64)
    assert samples.is_upright(desk.picture())


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF"])
async def test_place_and_camera_stay_behind(desk: Desk, image_format: str) -> None:
    """What a phone writes beside the pixels is in no preview."""
    photo = samples.phone_photo(6, image_format)
    assert samples.MAKER.encode() in photo
    assert await desk.thumbnail(photo)
    made, picture = desk.out.read_bytes(), desk.picture()
    assert not picture.getexif()
    assert not {"exif", "xmp", "icc_profile", "comment"} & set(picture.info)
    assert b"Word" not in made
    assert samples.is_upright(picture)


async def test_a_real_heic_photo_becomes_a_jpeg(desk: Desk) -> None:
    """Tiled and from another encoder than ours: whole, in its size, and without what came along."""
    body = (FILES / "sample.heic").read_bytes()
    facts = await desk.examine(body, "sample.heic")
    assert (facts.width, facts.height, facts.has_playback) == (1440, 960, True)
    made = await desk.playback(body)
    assert made
    assert (made.mime_type, made.width, made.height) == ("image/jpeg", 1440, 960)
    copy = desk.picture()
    assert not copy.getexif()
    colors = copy.convert("RGB").resize((2, 2)).getcolors()
    assert colors
    assert len(colors) == 4  # none of its quarters is empty
    assert await desk.thumbnail(body)


async def test_a_heic_photo_becomes_a_jpeg_beside_its_thumbnail(desk: Desk) -> None:
    """Browsers show what an iPhone took, without the camera's name."""
    body = samples.heic()
    assert samples.MAKER.encode() in body
    facts = await desk.examine(body, "IMG_1.HEIC")
    assert (facts.width, facts.height) == samples.ARROW_SIZE
    assert facts.has_preview
    assert facts.has_playback
    made = await desk.playback(body)
    assert made
    assert (made.mime_type, made.width, made.height) == ("image/jpeg", *samples.ARROW_SIZE)
    assert made.size_bytes == desk.out.stat().st_size
    copy = desk.picture()
    assert copy.format == "JPEG"
    assert samples.is_upright(copy)
    assert samples.MAKER.encode() not in desk.out.read_bytes()
    assert await desk.thumbnail(body)
    assert samples.is_upright(desk.picture())


async def test_a_turned_tiff_becomes_an_upright_jpeg(desk: Desk) -> None:
    """The copy needs no note on how to hold it."""
    made = await desk.playback(samples.phone_photo(8, "TIFF"))
    assert made
    copy = desk.picture()
    assert samples.is_upright(copy)
    assert not copy.getexif()


async def test_the_pages_of_a_tiff_are_counted(desk: Desk) -> None:
    """A fax is a document."""
    pages = io.BytesIO()
    sheet = samples.arrow()
    sheet.save(pages, "TIFF", save_all=True, append_images=[sheet, sheet])
    assert (await desk.examine(pages.getvalue())).pages == 3


async def test_transparency_is_kept_in_previews_and_white_in_copies(desk: Desk) -> None:
    """A logo shows on whatever page it stands on; JPEG knows no transparency."""
    clear = Image.new("RGBA", (40, 20), (0, 0, 0, 0))
    png, tiff = io.BytesIO(), io.BytesIO()
    clear.save(png, "PNG")
    clear.save(tiff, "TIFF")
    assert await desk.thumbnail(png.getvalue())
    assert desk.picture().convert("RGBA").getpixel((5, 5))[3] == 0
    assert await desk.playback(tiff.getvalue())
    assert desk.picture().getpixel((5, 5)) == (255, 255, 255)


@pytest.mark.parametrize(
    ("image_format", "mode"),
    [
        ("AVIF", "RGB"),
        ("BMP", "RGB"),
        ("GIF", "P"),
        ("JPEG", "CMYK"),
        ("PNG", "P"),
        ("PNG", "RGBA"),
        ("TIFF", "CMYK"),
        ("TIFF", "RGB"),
        ("WEBP", "RGB"),
    ],
)
async def test_colours_survive_every_format_and_mode(
    desk: Desk, image_format: str, mode: str
) -> None:
    """Red stays red, blue stays blue."""
    body = samples.picture(image_format, mode)
    assert (await desk.examine(body)).has_preview
    assert await desk.thumbnail(body, 128)
    assert samples.is_upright(desk.picture())


async def test_sixteen_bits_of_grey_are_not_burnt_to_white(desk: Desk) -> None:
    """A scan of 16 bits keeps its greys."""
    deep = Image.new("I;16", (20, 20), 0x8000)
    body = io.BytesIO()
    deep.save(body, "PNG")
    assert await desk.thumbnail(body.getvalue())
    red, *_ = desk.picture().getpixel((10, 10))
    assert 120 < red < 136


async def test_the_first_picture_of_an_animation_is_shown(desk: Desk) -> None:
    """A still of a GIF is where it begins."""
    body = io.BytesIO()
    other = Image.new("RGB", samples.ARROW_SIZE, "green")
    samples.arrow().save(body, "GIF", save_all=True, append_images=[other, other])
    assert await desk.thumbnail(body.getvalue(), 128)
    assert samples.is_upright(desk.picture())


async def test_small_pictures_are_not_enlarged(desk: Desk) -> None:
    """An icon stays an icon."""
    made = await desk.thumbnail((FILES / "sample.png").read_bytes(), 1600)
    assert made
    assert (made.width, made.height) == (200, 133)
    assert made.mime_type == "image/webp"
    assert made.size_bytes == desk.out.stat().st_size


@pytest.mark.parametrize("max_edge", [128, 512, 1600])
async def test_a_page_is_drawn_to_fill_the_size_that_is_asked_for(
    desk: Desk, max_edge: int
) -> None:
    """Pages have no pixels of their own: the larger preview is the sharper one."""
    made = await desk.thumbnail(samples.pdf("Words"), max_edge)
    assert made
    assert (made.width, made.height) == (max_edge * 3 // 4, max_edge)
    dark = sum(1 for value in desk.picture().convert("L").tobytes() if value < 100)
    assert dark > max_edge / 16


async def test_a_wide_gamut_photo_is_turned_to_the_colours_of_the_web(desk: Desk) -> None:
    """The profile is used, not just dropped."""
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    body = io.BytesIO()
    samples.arrow().save(body, "JPEG", icc_profile=profile)
    assert await desk.thumbnail(body.getvalue(), 128)  # one that does not fit is left out
    assert samples.is_upright(desk.picture())
