"""Reading PNG and JPEG files."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import Any

import imagecodecs
import numpy as np
from PIL import ImageFile, ImageOps, JpegImagePlugin

from xlstm_unet.errors import ImageError
from xlstm_unet.images.image import Array, Image
from xlstm_unet.images.limits import check_size

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
JPEG_MAGIC = b"\xff\xd8\xff"

_PNG_SAMPLES = {0: 1, 2: 3, 3: 4, 4: 2, 6: 4}
_PNG_KINDS = {0: "gray", 2: "colour", 3: "palette", 4: "gray with alpha", 6: "colour with alpha"}
_GREATEST_DEFLATE_RATIO = 1100
"""Deflate packs at most about 1032 bytes into one: a header promising more than that is false."""


@dataclass(frozen=True)
class PngHeader:
    """What the first bytes of a PNG file say."""

    width: int
    height: int
    depth: int
    """Bits a sample: 1, 2, 4, 8 or 16."""
    colour: int
    """Colour type: 0 gray, 2 colour, 3 palette, 4 gray with alpha, 6 colour with alpha."""

    @property
    def kind(self) -> str:
        """Colour type in words."""
        return _PNG_KINDS[self.colour]


def read_png_header(data: bytes, name: str) -> PngHeader:
    """Read size and kind from the start of a PNG file.

    Raises
    ------
    ImageError
        If the header is cut off or makes no sense.
    """
    if len(data) < 29 or data[12:16] != b"IHDR":
        raise ImageError(f"{name}: PNG file is cut off after {len(data)} bytes.", "Copy or export it again.")
    width, height, depth, colour = struct.unpack(">IIBB", data[16:26])
    if not width or not height or colour not in _PNG_SAMPLES or depth not in (1, 2, 4, 8, 16):
        raise ImageError(
            f"{name}: PNG header is damaged ({width} x {height}, {depth} bits, colour type {colour}).",
            "Copy or export it again.",
        )
    return PngHeader(width, height, depth, colour)


def read_png(data: bytes, name: str, limit: int | None, axes: str | None) -> Image:
    """Decode a PNG file: 1 to 16 bits, gray, colour or palette; alpha is dropped, palettes become colour.

    Values are those in the file: 0 and 1 for one bit.
    """
    header = read_png_header(data, name)
    samples, itemsize = _PNG_SAMPLES[header.colour], 2 if header.depth == 16 else 1
    check_size(name, (header.height, header.width, samples), itemsize, limit)
    packed = header.width * header.height * header.depth * (1 if header.colour == 3 else samples) // 8
    if packed > _GREATEST_DEFLATE_RATIO * len(data):
        raise ImageError(
            f"{name}: PNG header promises {header.width} x {header.height} pixels, "
            f"which {len(data)} bytes cannot hold.",
            "The file is cut off or false; copy or export it again.",
        )
    try:
        array: Array = imagecodecs.png_decode(data)
    except imagecodecs.PngError as error:
        raise ImageError(
            f"{name}: PNG file of {len(data)} bytes is damaged or cut off ({error}).",
            "Copy or export it again.",
        ) from error
    said = f"{header.depth}-bit PNG, {header.kind}"
    if header.colour == 0 and header.depth < 8:
        array = array // np.uint8(255 // (2**header.depth - 1))
    if header.colour == 3:
        said += ", looked up as colour"
    return _raster(array, axes, name, said)


def read_jpeg(data: bytes, name: str, limit: int | None, axes: str | None) -> Image:
    """Decode a JPEG file: gray or colour; turned as its EXIF orientation says."""
    try:
        picture: ImageFile.ImageFile = JpegImagePlugin.JpegImageFile(io.BytesIO(data))
        check_size(name, (picture.height, picture.width, len(picture.getbands())), 1, limit)
        if picture.mode not in ("L", "RGB"):
            raise ImageError(
                f"{name}: JPEG colour mode is {picture.mode}, expected gray or RGB.", "Export it as RGB."
            )
        orientation = picture.getexif().get(0x0112, 1)
        turned: Any = ImageOps.exif_transpose(picture)
        array = np.asarray(turned)
    except (OSError, SyntaxError, ValueError, struct.error) as error:
        raise ImageError(
            f"{name}: JPEG file of {len(data)} bytes is damaged or cut off ({error}).",
            "Copy or export it again.",
        ) from error
    said = "JPEG, " + ("gray" if array.ndim == 2 else "colour")
    if orientation not in (0, 1):
        said += f", turned as its EXIF orientation {orientation} says"
    return _raster(array, axes, name, said)


def _raster(array: Array, axes: str | None, name: str, said: str) -> Image:
    if array.ndim == 3 and array.shape[2] in (2, 4):
        array = array[..., :-1]
        said += ", alpha dropped"
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    axes = axes or ("YX" if array.ndim == 2 else "YXC")
    return Image(array, axes, name=name, read_as=f"{said}: axes {axes}.")
