"""Images of every depth and mode, against arrays that are computed without Pillow's conversions."""

import logging
import struct
import zlib

import cv2
import numpy as np
import pytest
from detectron2.data import detection_utils
from PIL import Image

from apdet.data.clean import image_size
from apdet.data.image import CHANNELS, read_image
from apdet.errors import UserError

GREY = np.random.RandomState(0).randint(0, 256, (5, 7)).astype(np.uint8)
COLOURS = np.random.RandomState(1).randint(0, 256, (5, 7, 3)).astype(np.uint8)  # RGB


def wide(pixels):
    """Pixels of 8 bits over the whole range of 16 bits, with noise that rounding removes."""
    noise = np.random.RandomState(2).randint(-100, 101, pixels.shape)
    return (pixels.astype(np.int64) * 257 + noise).clip(0, 65535).astype(np.uint16)


def read_grey(path, **kwargs):
    """The one value of each pixel of a grey image, (H, W), which must not depend on the format."""
    pixels = read_image(str(path), "RGB", **kwargs)
    grey = read_image(str(path), "L", **kwargs)
    assert pixels.dtype == grey.dtype == np.uint8
    np.testing.assert_array_equal(pixels, np.broadcast_to(grey, pixels.shape))
    return grey[..., 0]


def write_png(path, header, rows, *chunks):
    """A PNG file from its parts: ``header`` is (width, height, bit depth, colour type)."""

    def chunk(name, content):
        checksum = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + checksum

    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = [(b"IHDR", struct.pack(">IIBBBBB", *header, 0, 0, 0)), *chunks, (b"IDAT", data)]
    content = b"".join(chunk(*part) for part in [*parts, (b"IEND", b"")])
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)


def write_tiff(path, pixels, *, bits=16, photometric=1, sample_format=1, byte_order="<",
               orientation=1, data=None):  # fmt: skip
    """A TIFF file without compression. ``pixels``: (H, W[, 3]); ``data``: its bytes if packed."""
    data = pixels.astype(pixels.dtype.newbyteorder(byte_order)).tobytes() if data is None else data
    height, width, *colours = pixels.shape
    depths = struct.pack(byte_order + "3H", bits, bits, bits)
    depth = (258, "I", 3, 8 + len(data)) if colours else (258, "H", 1, bits)
    tags = [
        (256, "I", 1, width), (257, "I", 1, height), depth, (259, "H", 1, 1),
        (262, "H", 1, 2 if colours else photometric), (273, "I", 1, 8),
        (274, "H", 1, orientation), (277, "H", 1, *(colours or [1])), (278, "I", 1, height),
        (279, "I", 1, len(data)), (339, "H", 1, sample_format),
    ]  # fmt: skip
    directory = struct.pack(byte_order + "H", len(tags))
    for tag, kind, count, value in tags:
        is_short = kind == "H" or count == 3
        directory += struct.pack(byte_order + "HHI", tag, 3 if is_short else 4, count)
        directory += struct.pack(byte_order + kind, value).ljust(4, b"\0")
    magic = b"II*\0" if byte_order == "<" else b"MM\0*"
    start = struct.pack(byte_order + "I", 8 + len(data) + len(depths))
    path.write_bytes(magic + start + data + depths + directory + bytes(4))


@pytest.mark.parametrize("suffix", ["png", "tiff", "pgm", "jp2"])
def test_grey_of_16_bits_is_scaled_to_8(tmp_path, suffix):
    path, pixels = tmp_path / f"a.{suffix}", np.kron(GREY, np.ones((9, 9), np.uint8))
    cv2.imwrite(str(path), wide(pixels), [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000])
    tolerance = 1 if suffix == "jp2" else 0
    np.testing.assert_allclose(read_grey(path).astype(int), pixels, atol=tolerance)


@pytest.mark.parametrize("suffix", ["png", "tiff", "ppm"])
@pytest.mark.parametrize("image_format", ["RGB", "BGR"])
def test_colours_of_16_bits_are_scaled_to_8(tmp_path, suffix, image_format):
    path = tmp_path / f"a.{suffix}"
    cv2.imwrite(str(path), wide(COLOURS)[..., ::-1])
    pixels = read_image(str(path), image_format)
    expected = COLOURS if image_format == "RGB" else COLOURS[..., ::-1]
    np.testing.assert_allclose(pixels.astype(int), expected, atol=suffix == "ppm")


@pytest.mark.parametrize("channels", [2, 4])
def test_transparency_of_16_bits_is_dropped(tmp_path, channels):
    path, alpha = tmp_path / "a.png", np.full((5, 7, 1), 30000)
    colours = GREY[..., None] if channels == 2 else COLOURS
    samples = np.concatenate([wide(colours), alpha], axis=2).astype(">u2")
    write_png(path, (7, 5, 16, 4 if channels == 2 else 6), [row.tobytes() for row in samples])
    expected = np.broadcast_to(colours, (5, 7, 3))
    np.testing.assert_array_equal(read_image(str(path), "RGB"), expected)


@pytest.mark.parametrize("byte_order", ["<", ">"])
def test_a_tiff_may_have_either_byte_order(tmp_path, byte_order):
    write_tiff(tmp_path / "a.tif", wide(GREY), byte_order=byte_order)
    np.testing.assert_array_equal(read_grey(tmp_path / "a.tif"), GREY)


def test_a_tiff_may_say_that_0_is_white(tmp_path):
    write_tiff(tmp_path / "a.tif", 65535 - wide(GREY), photometric=0)
    np.testing.assert_array_equal(read_grey(tmp_path / "a.tif"), GREY)


def test_a_tiff_of_12_bits_is_scaled_by_them(tmp_path):
    path, pixels = tmp_path / "a.tif", np.array([[0, 4095, 2048, 16]], dtype=np.uint16)
    data = bytes.fromhex("".join(f"{value:03x}" for value in pixels.ravel()))
    write_tiff(path, pixels, bits=12, data=data)
    assert read_grey(path).tolist() == [[0, 255, 128, 1]]


@pytest.mark.parametrize("maxval", [65535, 4095, 1000, 255, 15])
def test_a_pgm_or_ppm_is_scaled_by_its_largest_value(tmp_path, maxval):
    values = np.array([0, maxval, maxval // 2, maxval // 3, 1, 2])
    data = values.astype(">u2" if maxval > 255 else "u1").tobytes()
    for magic, width in ((b"P5", 6), (b"P6", 2)):
        path = tmp_path / "a.pnm"
        path.write_bytes(b"%s\n%d 1\n%d\n" % (magic, width, maxval) + data)
        found = read_image(str(path), "RGB" if width == 2 else "L").ravel()
        np.testing.assert_allclose(found, values * 255 / maxval, atol=1)


@pytest.mark.parametrize("pixels", [GREY, COLOURS], ids=["grey", "colours"])
def test_a_camera_of_12_bits_in_a_file_of_16_is_told_by_bits(tmp_path, pixels):
    path = str(tmp_path / "a.png")
    cv2.imwrite(path, np.rint(pixels * (4095 / 255)).astype(np.uint16))
    with pytest.raises(UserError, match=r"a\.png: an image of 16 bits, but .* `bits: 12`"):
        read_image(path, "BGR")
    expected = pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)
    np.testing.assert_array_equal(read_image(path, "BGR", bits=12), expected)
    assert read_image(path, "BGR", bits=16).max() == 16
    with pytest.raises(UserError, match=r"a pixel of 40\d+, more than 10 bits hold; correct"):
        read_image(path, "BGR", bits=10)


def test_a_black_image_of_16_bits_is_black(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((3, 4), np.uint16))
    assert not read_grey(tmp_path / "a.png").any()


@pytest.mark.parametrize("suffix", ["tiff", "pfm"])
def test_floats_from_0_to_1_are_scaled_by_255(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    cv2.imwrite(str(path), GREY.astype(np.float32) / 255)
    np.testing.assert_array_equal(read_grey(path), GREY)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0, 255.0], r"floats from 0 to 255, but .* save it with 8 or 16 bits"),
        ([-0.1, 1], r"floats from -0\.1 to 1"),
        ([0, np.nan], r"floats from nan to nan"),
        ([0, np.inf], r"floats from 0 to inf"),
    ],
)
def test_other_floats_are_refused(tmp_path, values, message):
    path = str(tmp_path / "a.tiff")
    cv2.imwrite(path, np.array([values], dtype=np.float32))
    with pytest.raises(UserError, match=rf"a\.tiff: its pixels are {message}"):
        read_image(path, "RGB")


@pytest.mark.parametrize(("dtype", "sample_format"), [("i2", 2), ("i4", 2), ("u4", 1)])
def test_integers_that_are_signed_or_of_32_bits_are_refused(tmp_path, dtype, sample_format):
    pixels = GREY.astype(dtype)
    bits = 8 * pixels.itemsize
    write_tiff(tmp_path / "a.tif", pixels, bits=bits, sample_format=sample_format)
    with pytest.raises(UserError, match=r"a\.tif: .*signed or 32-bit .*; save it with 8 or 16"):
        read_image(str(tmp_path / "a.tif"), "RGB")


@pytest.mark.parametrize("pixels", [GREY / 255, COLOURS / np.float32(255)], ids=["f8", "colours"])
def test_floats_that_pillow_does_not_know_are_refused_with_the_remedy(tmp_path, pixels):
    path = str(tmp_path / "a.tiff")
    cv2.imwrite(path, pixels)
    for read in (image_size, lambda path: read_image(path, "RGB")):
        with pytest.raises(UserError, match=r"a\.tiff: .*; replace it by one of 8 or 16 bits or"):
            read(path)


@pytest.mark.parametrize("image_format", CHANNELS)
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_images_of_8_bits_are_read_as_detectron2_reads_them(tmp_path, mode, image_format):
    path = str(tmp_path / ("a.tiff" if mode in ("CMYK", "YCbCr") else "a.png"))
    Image.fromarray(COLOURS).convert(mode).save(path)
    found = read_image(path, image_format)
    expected = detection_utils.read_image(path, image_format)
    assert found.shape == (5, 7, CHANNELS[image_format])
    np.testing.assert_array_equal(found, expected.astype(found.dtype))
    assert found.dtype == (np.float32 if image_format == "YUV-BT.601" else np.uint8)


def test_a_bit_is_black_or_white(tmp_path):
    Image.fromarray(GREY > 127).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_grey(tmp_path / "a.png"), np.where(GREY > 127, 255, 0))


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_grey_of_fewer_bits_is_scaled_by_them(tmp_path, depth):
    values = [v % 2**depth for v in range(8)]
    row = int("".join(f"{v:0{depth}b}" for v in values), 2).to_bytes(depth, "big")
    write_png(tmp_path / "a.png", (8, 1, depth, 0), [row])
    assert read_grey(tmp_path / "a.png").tolist() == [[v * 255 // (2**depth - 1) for v in values]]


@pytest.mark.filterwarnings("ignore:Palette images with Transparency")
@pytest.mark.parametrize("alphas", [b"", b"\0", b"\x80\x40"])
def test_a_palette_gives_its_colours_whatever_their_transparency(tmp_path, alphas):
    palette = bytes([10, 20, 30, 200, 100, 50])
    chunks = [(b"PLTE", palette), *[(b"tRNS", alphas)] * bool(alphas)]
    write_png(tmp_path / "a.png", (2, 1, 8, 3), [b"\0\1"], *chunks)
    found = read_image(str(tmp_path / "a.png"), "RGB")
    assert found.tolist() == [[[10, 20, 30], [200, 100, 50]]]


@pytest.mark.parametrize("suffix", ["jpg", "tiff"])
def test_inks_are_turned_into_light(tmp_path, suffix):
    inks = np.broadcast_to(np.array([40, 80, 120, 51], np.uint8), (16, 16, 4))
    # Pillow writes a JPEG of inks as Adobe does: inverted, with a marker.
    options = {"quality": 100, "subsampling": 0} if suffix == "jpg" else {}
    Image.fromarray(inks, "CMYK").save(tmp_path / f"a.{suffix}", **options)
    found = read_image(str(tmp_path / f"a.{suffix}"), "RGB").astype(float)
    expected = (255 - inks[..., :3].astype(float)) * (255 - 51) / 255
    np.testing.assert_allclose(found, expected, atol=2)


@pytest.mark.parametrize("image_format", ["RGB", "L"])
def test_lab_is_turned_into_colours(tmp_path, image_format):
    lab = np.broadcast_to(np.array([136, 128, 128], np.uint8), (4, 4, 3))  # grey
    # Pillow's arrays have a and b as signed bytes, its files too.
    Image.fromarray(lab - np.array([0, 128, 128], np.uint8), "LAB").save(tmp_path / "a.tiff")
    found = read_image(str(tmp_path / "a.tiff"), image_format).astype(int)
    expected = cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)[0, 0, 0]
    np.testing.assert_allclose(found, expected, atol=3)


def write_turned(path, pixels):
    """Write an image that EXIF says to turn clockwise."""
    exif = Image.Exif()
    exif[0x0112] = 6
    if pixels.dtype == np.uint8 or pixels.ndim == 2:
        Image.fromarray(pixels).save(path, exif=exif)
    elif path.suffix == ".png":
        block = exif.tobytes().removeprefix(b"Exif\0\0")
        height, width = pixels.shape[:2]
        rows = [row.tobytes() for row in pixels.astype(">u2")]
        write_png(path, (width, height, 16, 2), rows, (b"eXIf", block))
    else:
        write_tiff(path, pixels, orientation=6)


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("suffix", ["png", "tiff"])
@pytest.mark.parametrize("pixels", [GREY, COLOURS], ids=["grey", "colours"])
def test_an_image_is_turned_once_as_its_exif_says(tmp_path, pixels, suffix, deep):
    path = tmp_path / f"a.{suffix}"
    write_turned(path, wide(pixels) if deep else pixels)
    found = read_image(str(path), "RGB")
    expected = np.rot90(pixels if pixels.ndim == 3 else pixels[..., None], -1)
    np.testing.assert_array_equal(found, np.broadcast_to(expected, (7, 5, 3)))
    assert image_size(str(path)) == (5, 7)


@pytest.mark.parametrize("pixels", [GREY, COLOURS], ids=["grey", "colours"])
def test_a_truncated_image_of_16_bits_is_named(tmp_path, pixels):
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), wide(np.kron(pixels.T, np.ones((9, 9), np.uint8)).T))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"a\.png: not a readable image .*; replace it or remove"):
        read_image(str(path), "RGB")


def test_several_frames_are_said_once_and_the_first_is_read(tmp_path, caplog, monkeypatch):
    logger = logging.getLogger("apdet.data.image")
    monkeypatch.setattr(logger, "propagate", False)
    monkeypatch.setattr(logger, "handlers", [caplog.handler])
    frames = [Image.new("L", (4, 3), shade) for shade in (10, 200)]
    for name in ("a.gif", "b.tiff"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        assert (read_grey(tmp_path / name) == 10).all()
    (message,) = [record.getMessage() for record in caplog.records]
    assert "a.gif holds several frames" in message
