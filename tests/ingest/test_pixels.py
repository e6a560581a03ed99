"""Images of more than eight bits, or that are no plain RGB: the pixels that PIL's users mean, or a refusal."""

import io
import struct
import zlib

import numpy as np
import pytest
from conformance import read
from layouts import write_parquet
from PIL import Image

from ice_ray.ingest.datasets import open_dataset
from ice_ray.ingest.datasets.decode import decode
from ice_ray.ingest.datasets.own import normal_image

RAMP = np.linspace(0, 65535, 64).round().astype(np.uint16).reshape(8, 8)
EIGHT = np.round(RAMP / 257).astype(np.uint8)


def saved(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png(values: np.ndarray, colour: int) -> bytes:
    """16 bits a channel, which PIL itself cannot write in colour."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    height, width = values.shape[:2]
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in values)
    head = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def tiff(values: np.ndarray, order: str = "<", bits: int = 16, kind: int = 1, photometric: int = 1) -> bytes:
    """An uncompressed grey TIFF, written by hand: any byte order, kind of samples and meaning of zero."""
    content = values.astype(values.dtype.newbyteorder(order)).tobytes()
    height, width = values.shape
    tags = [(256, 3, width), (257, 3, height), (258, 3, bits), (259, 3, 1), (262, 3, photometric), (273, 4, 8)]
    tags += [(277, 3, 1), (278, 3, height), (279, 4, len(content)), (339, 3, kind)]
    shapes = {3: "HHIHxx", 4: "HHII"}
    entries = b"".join(struct.pack(order + shapes[size], tag, size, 1, value) for tag, size, value in tags)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8 + len(content))
    return head + content + struct.pack(f"{order}H", len(tags)) + entries + struct.pack(f"{order}I", 0)


def twelve_bits(values: np.ndarray) -> bytes:
    """Two samples in three bytes."""
    first, second = values.reshape(-1, 2).astype(np.uint32).T
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], axis=1).astype(np.uint8)
    whole = tiff(np.frombuffer(packed.tobytes(), np.uint8).reshape(8, -1), bits=12)
    width = struct.pack("<HHIHxx", 256, 3, 1, packed.size // 8)
    return whole.replace(width, struct.pack("<HHIHxx", 256, 3, 1, 8))


@pytest.mark.parametrize(
    "content",
    {
        "png": saved(Image.fromarray(RAMP), "PNG"),
        "tiff": saved(Image.fromarray(RAMP), "TIFF"),
        "compressed tiff": saved(Image.fromarray(RAMP), "TIFF", compression="tiff_lzw"),
        "big-endian tiff": tiff(RAMP, ">"),
        "tiff whose zero is white": tiff(65535 - RAMP, photometric=0),
        "tiff of 12 bits": twelve_bits(np.round(RAMP / 65535 * 4095)),
        "pgm": saved(Image.fromarray(RAMP), "PPM"),
        "pgm of 12 bits": b"P5\n8 8\n4095\n" + np.round(RAMP / 65535 * 4095).astype(">u2").tobytes(),
        "pgm in letters": b"P2\n8 8\n65535\n" + " ".join(map(str, RAMP.ravel())).encode(),
    }.items(),
    ids=lambda pair: pair[0],
)
def test_sixteen_bits_become_eight_by_the_files_own_range(content):
    row = decode("x", content[1], None)
    assert row.error == ""
    assert np.abs(row.pixels.astype(int) - EIGHT[..., None]).max() <= (1 if "12" in content[0] else 0)


@pytest.mark.parametrize(("colour", "channels"), [(2, 3), (6, 4), (4, 2)])
def test_sixteen_bits_in_colour_are_not_clipped(colour, channels):
    values = np.random.default_rng(0).integers(0, 65536, (8, 8, channels)).astype(np.uint16)
    row = decode("x", png(values, colour), None)
    shown = values[..., :3] if channels > 2 else values[..., :1]
    assert np.abs(row.pixels.astype(int) - np.round(shown / 257).astype(int)).max() <= 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (saved(Image.fromarray(RAMP.astype(np.int32)), "TIFF"), "signed integers"),
        (tiff(RAMP.astype(np.uint32), bits=32), "32-bit integers"),
        (saved(Image.fromarray((RAMP / 65535).astype(np.float32)), "TIFF"), "floating-point"),
        (saved(Image.fromarray((RAMP / 65535).astype(np.float32)), "PPM"), "floating-point"),
        (tiff((RAMP // 2).astype(np.int16), kind=2), "signed integers"),
        (tiff((EIGHT // 2).astype(np.int8), bits=8, kind=2), "signed integers"),
    ],
    ids=["int32", "uint32", "float tiff", "pfm", "int16", "int8"],
)
def test_pixels_whose_range_is_not_known_are_refused_by_file_and_row(tmp_path, content, said):
    good = saved(Image.fromarray(EIGHT), "PNG")
    write_parquet(tmp_path / "train.parquet", [0, 1], [good, content])
    first, second = read(open_dataset(f"parquet:{tmp_path}"), "train", [0, 1])
    assert first.pixels is not None
    assert second.pixels is None
    assert second.error.startswith(f"{tmp_path}/train.parquet row 1: ")
    assert said in second.error
    assert "convert it to 8 or 16 bits" in second.error
    assert "corrupt" not in second.error


def test_other_modes_are_what_pil_s_users_train_on():
    """The oracle: `convert("RGB")` of torchvision's loader, which drops transparency and turns nothing upright."""
    colours = np.random.default_rng(0).integers(0, 256, (8, 8, 4), dtype=np.uint8)
    rgba, grey = Image.fromarray(colours), Image.fromarray(EIGHT)
    exif = Image.Exif()
    exif[0x0112] = 6
    files = {
        "1 bit": saved(grey.convert("1"), "PNG"),
        "palette with transparency": saved(rgba.convert("RGB").quantize(16), "PNG", transparency=3),
        "LA": saved(Image.merge("LA", (grey, grey)), "PNG"),
        "RGBA": saved(rgba, "PNG"),
        "CMYK": saved(rgba.convert("RGB").convert("CMYK"), "JPEG"),
        "on its side": saved(rgba.convert("RGB"), "JPEG", exif=exif),
        "frames": saved(grey, "GIF", save_all=True, append_images=[grey.rotate(90)]),
    }
    for name, content in files.items():
        row = decode(name, content, None)
        assert row.error == "", name
        assert np.array_equal(row.pixels, np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))), name


def test_pgm_files_of_a_folder_are_images(tmp_path):
    for split in ("train", "test"):
        for label in ("ant", "bee"):
            folder = tmp_path / split / label
            folder.mkdir(parents=True)
            (folder / "0.pgm").write_bytes(saved(Image.fromarray(RAMP), "PPM"))
            (folder / "1.PGM").write_bytes(saved(Image.fromarray(EIGHT), "PPM"))
    dataset = open_dataset(f"imagefolder:{tmp_path}", 8)
    assert dataset.labels["train"].tolist() == [0, 0, 1, 1]
    for row in read(dataset, "train", range(4)):
        assert np.array_equal(row.pixels[..., 1], EIGHT)


def test_arrays_of_one_s_own_follow_the_same_rule():
    whole = {"image": np.repeat(EIGHT[..., None], 3, axis=2).tobytes(), "height": 8, "width": 8}
    assert normal_image(RAMP) == whole
    assert normal_image(RAMP.astype(">u2")) == whole
    assert normal_image(Image.fromarray(RAMP)) == whole
    assert normal_image(EIGHT) == whole
    palette = Image.fromarray(EIGHT).convert("RGB").quantize(8)
    assert normal_image(palette)["image"] == palette.convert("RGB").tobytes()
    black = Image.fromarray(EIGHT).convert("1")
    assert normal_image(np.asarray(black))["image"] == black.convert("RGB").tobytes()
    png_file = saved(Image.fromarray(EIGHT), "PNG")
    assert normal_image(bytearray(png_file)) == normal_image(memoryview(png_file)) == {"image": png_file}
    assert normal_image(None) == normal_image({"bytes": None, "path": "x.png"}) == {"fault": "no image"}
    for kind in (np.float32, np.float64, np.int32, np.int64, np.int16):
        fault = normal_image((RAMP > 99).astype(kind))["fault"]
        assert np.dtype(kind).name in fault
        assert "give uint8" in fault
