"""Images whose pixels are not three channels of 8 bits."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from faults.pictures import draw_pictures
from faults.row import Row, as_flawless, refused, works
from faults.setup import Setup
from PIL import Image

Encode = Callable[[np.ndarray], Image.Image]


def grey(pixels: np.ndarray) -> np.ndarray:
    """The brightness of an image, (64, 64) uint8."""
    return np.array(Image.fromarray(pixels).convert("L"))


def encoded(encode: Encode, suffix: str = "png", **options: object) -> Callable[[Setup], None]:
    """Write all images by ``encode``, and name the new files in the annotations."""

    def fault(setup: Setup) -> None:
        folder = Path(setup.folder, "images")
        for picture in draw_pictures():
            (folder / f"{picture.stem}.png").unlink()
            encode(picture.pixels).save(folder / f"{picture.stem}.{suffix}", **options)

        def rename(content: dict) -> None:
            for image in content["images"]:
                image["file_name"] = f"{Path(image['file_name']).stem}.{suffix}"

        setup.edit_json(rename)

    return fault


def sixteen_bits(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(grey(pixels).astype(np.uint16) * 257)


def palette(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels).quantize(256)


eight_bits = encoded(lambda pixels: Image.fromarray(grey(pixels)))
same_colours = encoded(lambda pixels: palette(pixels).convert("RGB"))
AS_GREY = works(twin=eight_bits)
REMEDY = r"im\d\.\w+[\s\S]*(8|depth|bit|convert)"

ROWS = (
    Row(
        name="grey PNG of 16 bits",
        fault=encoded(sixteen_bits),
        expect=(AS_GREY, refused(REMEDY)),
    ),
    Row(
        name="grey TIFF of 16 bits",
        fault=encoded(sixteen_bits, "tif"),
        expect=(AS_GREY, refused(REMEDY)),
    ),
    Row(
        name="grey TIFF of 16 bits, big endian",
        slow=True,
        fault=encoded(
            lambda pixels: Image.frombytes(
                "I;16B", (64, 64), (grey(pixels).astype(">u2") * 257).astype(">u2").tobytes()
            ),
            "tif",
        ),
        expect=(AS_GREY, refused(REMEDY)),
    ),
    Row(
        name="TIFF of 32-bit integers that go up to 65535",
        slow=True,
        fault=encoded(lambda pixels: Image.fromarray(grey(pixels).astype(np.int32) * 257), "tif"),
        expect=(AS_GREY, refused(REMEDY)),
    ),
    Row(
        name="TIFF of floats from 0 to 1",
        fault=encoded(lambda pixels: Image.fromarray(grey(pixels).astype(np.float32) / 255), "tif"),
        expect=(AS_GREY, refused(REMEDY)),
    ),
    Row(
        name="TIFF of floats from 0 to 255",
        slow=True,
        fault=encoded(lambda pixels: Image.fromarray(grey(pixels).astype(np.float32)), "tif"),
        expect=(AS_GREY, refused(REMEDY)),
    ),
    Row(
        name="TIFF of floats, some of them nan",
        fault=encoded(
            lambda pixels: Image.fromarray(
                np.where(grey(pixels) > 100, np.nan, grey(pixels) / 255).astype(np.float32)
            ),
            "tif",
        ),
        expect=(refused(r"im\d\.tif"),),
    ),
    Row(
        name="PNG with a palette",
        fault=encoded(palette),
        expect=(works(twin=same_colours), refused(REMEDY)),
    ),
    Row(
        name="GIF",
        slow=True,
        fault=encoded(palette, "gif"),
        expect=(works(twin=same_colours), refused(REMEDY)),
    ),
    Row(
        name="CMYK TIFF",
        slow=True,
        fault=encoded(lambda pixels: Image.fromarray(pixels).convert("CMYK"), "tif"),
        expect=(as_flawless(), refused(REMEDY)),
    ),
    Row(
        name="PNG with an opaque alpha channel",
        slow=True,
        fault=encoded(lambda pixels: Image.fromarray(pixels).convert("RGBA")),
        expect=(as_flawless(), refused(REMEDY)),
    ),
    Row(
        name="grey PNG with an opaque alpha channel",
        slow=True,
        fault=encoded(lambda pixels: Image.fromarray(grey(pixels)).convert("LA")),
        expect=(AS_GREY, refused(REMEDY)),
    ),
    Row(
        name="grey images of 16 bits with INPUT.FORMAT L",
        slow=True,
        fault=lambda setup: (encoded(sixteen_bits)(setup), _as_grey_model(setup)),
        expect=(
            works(twin=lambda setup: (eight_bits(setup), _as_grey_model(setup))),
            refused(REMEDY),
        ),
    ),
)


def _as_grey_model(setup: Setup) -> None:
    setup.set("INPUT.FORMAT", "L")
    setup.set("MODEL.WEIGHTS", "")
    setup.set("MODEL.PIXEL_MEAN", [100.0])
    setup.set("MODEL.PIXEL_STD", [50.0])
