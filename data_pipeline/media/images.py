"""Images as they are stored: PNG of 8 bits, grey or RGB, of one size.

Legend: H, W pixels, C channels.
"""

import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
from pydantic import Field

from data_pipeline.config import Config
from data_pipeline.media.item import Caps, Entry, Stored, Unfit, told
from data_pipeline.media.libraries import library

FORMATS = ("PNG", "JPEG")
MODES: dict[int, Literal["L", "RGB"]] = {1: "L", 3: "RGB"}
EIGHT_BITS = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr")
ORIENTATION = 0x0112
"""EXIF's tag of how an image was held (EXIF 2.32, section 4.6.4)."""
TURNS = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_270",
         7: "TRANSVERSE", 8: "ROTATE_90"}  # fmt: skip
"""What makes it upright, by Pillow's names."""
Fit = Literal["exact", "crop"]
"""Other sizes are left out; or scaled until they cover the size, and cut to it around the middle."""


class ImageConverter(Config):
    """PNG, JPEG and rows of arrays to PNG of one size."""

    kind: Literal["images"] = "images"
    height: int = Field(gt=0)
    width: int = Field(gt=0)
    channels: Literal[1, 3] = 1
    fit: Fit = "exact"
    recolour: bool = False
    """Images of other channels are converted (colours to grey by ITU-R 601, transparency dropped), not left out."""

    @property
    def endings(self) -> tuple[str, ...]:
        return (".png", ".jpg", ".jpeg")

    @property
    def suffix(self) -> str:
        return "png"

    def parts(self, entry: Entry, caps: Caps) -> list[Entry]:
        return [entry]

    def convert(self, entry: Entry, caps: Caps) -> Stored:
        if isinstance(entry.content, np.ndarray):
            return self._stored(_of_array(entry.content))
        with opened(entry.content, caps) as image:
            return self._stored(image)

    def _stored(self, image: Any) -> Stored:
        """Its facts are of the file, as it is before it is turned."""
        facts: dict[str, int | str] = {"height": image.height, "width": image.width, "mode": image.mode}
        if image.format != "PNG":  # JPEG, or the several in one file that cameras write
            image = _upright(image)
        return Stored(encode_png(np.asarray(self._fitted(image))), 1, facts)

    def _fitted(self, image: Any) -> Any:
        """Of the channels and the size; Unfit where that is not allowed."""
        if image.mode not in EIGHT_BITS:
            raise Unfit("wrong_depth", f"its mode is {image.mode}, no image of 8 bits a value")
        wanted = MODES[self.channels]
        if image.mode != wanted and not self.recolour:
            raise Unfit(
                "wrong_channels", f"its mode is {image.mode}, the recipe's {wanted}; or set data.recolour to true"
            )
        image = image.convert(wanted)
        if image.size == (self.width, self.height):
            return image
        if self.fit == "exact":
            raise Unfit("wrong_size", f"{image.height} x {image.width} pixels, not {self.height} x {self.width}")
        lanczos = library("PIL.Image").Resampling.LANCZOS
        return library("PIL.ImageOps").fit(image, (self.width, self.height), lanczos)


@contextmanager
def opened(content: bytes, caps: Caps) -> Iterator[Any]:
    """An image of which only the header has been read; Unfit where it is too large, or none, to the last byte."""
    Image = library("PIL.Image")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the cap is ours
            image = Image.open(io.BytesIO(content), formats=FORMATS)
        with image:
            if image.width * image.height > caps.pixels:
                raise Unfit("too_many_pixels", f"{image.height} x {image.width} pixels, more than {caps.pixels:,}")
            yield image
    except Image.DecompressionBombError as error:
        most = min(caps.pixels, 2 * (Image.MAX_IMAGE_PIXELS or caps.pixels))  # where pillow refuses to open one
        raise Unfit("too_many_pixels", f"more than {most:,} pixels") from error
    except (OSError, ValueError, SyntaxError, EOFError, OverflowError, struct.error, zlib.error) as error:
        raise Unfit("cut_off" if "truncated" in str(error) else "broken", told(error)) from error


def _upright(image: Any) -> Any:
    """As its EXIF orientation says that it is to be seen."""
    try:
        orientation = image.getexif().get(ORIENTATION)
    except (OSError, ValueError, SyntaxError, EOFError, struct.error):
        return image  # broken EXIF says nothing, and the image may be whole
    turn = TURNS.get(orientation)
    return image if turn is None else image.transpose(library("PIL.Image").Transpose[turn])


def encode_png(image_HWC: np.ndarray) -> bytes:
    """uint8 [H, W] or [H, W, 3]; the same bytes for the same values (and versions of pillow and zlib)."""
    stream = io.BytesIO()
    library("PIL.Image").fromarray(image_HWC).save(stream, format="PNG")
    return stream.getvalue()


def decode_png(content: bytes) -> np.ndarray:
    """[C, H, W] uint8; OSError or ValueError where it is none."""
    with library("PIL.Image").open(io.BytesIO(content), formats=("PNG",)) as image:
        values = np.asarray(image, dtype=np.uint8)
    return values[None] if values.ndim == 2 else np.ascontiguousarray(values.transpose(2, 0, 1))


def _of_array(values: np.ndarray) -> Any:
    """[H, W] or [H, W, C] of one or three channels."""
    values = values[..., 0] if values.ndim == 3 and values.shape[-1] == 1 else values
    if values.ndim == 3 and values.shape[-1] != 3:
        raise Unfit("wrong_channels", f"an array of {values.shape[-1]} channels; the last dimension is 1 or 3")
    return library("PIL.Image").fromarray(values)
