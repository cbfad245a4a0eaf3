"""A folder of PNG and JPEG pictures; sub-folders are classes."""

from __future__ import annotations

import struct
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from edgecompress.core.arrays import Array
from edgecompress.core.errors import DataInvalid, InputOutputFailed
from edgecompress.pipeline.data_formats.source import Pick, Raw, check_declared

SUFFIXES = (".png", ".jpg", ".jpeg")
LARGEST_PICTURE_PIXELS = 64_000_000
DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)
"""What opening or decoding a damaged picture raises."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureShape:
    """What the model takes.

    Attributes:
        channels: 1 (grey) or 3 (red, green, blue).
        height, width: None where the model leaves them open; all pictures are alike then.
    """

    channels: int
    height: int | None
    width: int | None


def read(path: Path, name: str, wanted: PictureShape, pick: Pick) -> Raw:
    """Pictures as (n, height, width, channels) uint8, resized (bilinear) where the model is fixed.

    Pictures are upright (EXIF), transparency is dropped, 16-bit grey becomes 8-bit, and of an
    animation the first picture is taken.

    Args:
        path: The folder.
        name: Of the model's input.
        wanted: What the model takes.
        pick: Which pictures to take; only those are opened.

    Raises:
        DataInvalid: No pictures, a damaged or too large one, or sizes that differ.
        InputOutputFailed: The folder cannot be read.
    """
    files, labels, classes, others = _list(path)
    rows = pick.indices(len(files))
    shape = (len(rows), wanted.height or 1, wanted.width or 1, wanted.channels)
    check_declared(shape, np.dtype(np.uint8), str(path))
    pictures = [_decode(files[row], wanted) for row in rows]
    sizes = {picture.shape for picture in pictures}
    if len(sizes) > 1:
        listed = ", ".join(sorted(f"{shape[1]}x{shape[0]}" for shape in sizes)[:3])
        raise DataInvalid(
            f"the pictures differ in size ({listed}, ...) and the model's input size is open",
            where=str(path),
            hint=f"fix it with --input-shape {name}=1,{wanted.channels},HEIGHT,WIDTH",
        )
    values = np.stack(pictures)
    details = [f"pictures of {values.shape[2]}x{values.shape[1]}"]
    if labels is not None:
        details.append(f"{len(classes)} classes from sub-folders")
    note = f"{others} entries that are not PNG or JPEG pictures were left out"
    return Raw(
        arrays={name: values},
        labels=None if labels is None else labels[rows],
        total=len(files),
        layout="nhwc",
        details=tuple(details),
        warnings=(note,) if others else (),
    )


def channels_of_first(path: Path) -> int:
    """Channels of the first picture of a folder: 1 (grey) or 3.

    Raises:
        DataInvalid: No pictures, or the first one is damaged.
        InputOutputFailed: The folder cannot be read.
    """
    first = _list(path)[0][0]
    try:
        with Image.open(first, formats=("PNG", "JPEG")) as picture:
            grey = picture.mode in ("1", "L", "LA") or picture.mode.startswith("I")
            return 1 if grey else 3
    except PermissionError as error:
        raise InputOutputFailed("cannot read the picture", where=str(first)) from error
    except DAMAGE as error:
        raise DataInvalid(f"the picture cannot be decoded: {error}", where=str(first)) from error


def _list(path: Path) -> tuple[list[Path], Array | None, list[str], int]:
    """Pictures in order, their labels, the class names, and how many entries are neither."""
    pictures, folders, others = _entries(path)
    if not folders:
        if not pictures:
            raise DataInvalid("no PNG or JPEG pictures in the folder", where=str(path))
        return pictures, None, [], others
    if pictures:
        raise DataInvalid(
            f"the folder has both pictures ({pictures[0].name}, ...) and sub-folders "
            f"({folders[0].name}, ...)",
            where=str(path),
            hint="sub-folders are classes; put every picture in one",
        )
    numbered = all(folder.name.isascii() and folder.name.isdecimal() for folder in folders)
    if numbered:
        folders.sort(key=lambda folder: int(folder.name))
    labels: list[int] = []
    for place, folder in enumerate(folders):
        inside, deeper, rest = _entries(folder)
        if not inside:
            raise DataInvalid("no PNG or JPEG pictures in the class folder", where=str(folder))
        others += len(deeper) + rest
        pictures += inside
        labels += [int(folder.name) if numbered else place] * len(inside)
    return pictures, np.array(labels), [folder.name for folder in folders], others


def _entries(path: Path) -> tuple[list[Path], list[Path], int]:
    """Pictures and sub-folders of a folder, sorted by name, and the number of other entries."""
    try:
        entries = sorted(path.iterdir())
        folders = [entry for entry in entries if entry.is_dir() and entry.name[0] != "."]
        pictures = [entry for entry in entries if entry.suffix.lower() in SUFFIXES]
        pictures = [entry for entry in pictures if entry.is_file()]
    except OSError as error:
        message = f"cannot read the folder: {error.strerror}"
        raise InputOutputFailed(message, where=str(path)) from error
    links = [folder for folder in folders if folder.is_symlink()]
    if links:
        raise DataInvalid("a class folder is a symbolic link", where=str(links[0]))
    return pictures, folders, len(entries) - len(folders) - len(pictures)


def _decode(path: Path, wanted: PictureShape) -> Array:
    """One picture as (height, width, channels) uint8."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=("PNG", "JPEG")) as picture:
                _check_size(picture, path)
                upright: Image.Image = ImageOps.exif_transpose(picture)
                return _convert(upright, wanted)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataInvalid("the picture is too large to be opened", where=str(path)) from error
    except PermissionError as error:
        raise InputOutputFailed("cannot read the picture", where=str(path)) from error
    except DAMAGE as error:
        message = f"the picture cannot be decoded: {error}"
        raise DataInvalid(message.replace(f" {str(path)!r}", ""), where=str(path)) from error


def _check_size(picture: Image.Image, path: Path) -> None:
    if picture.width * picture.height > LARGEST_PICTURE_PIXELS:
        raise DataInvalid(
            f"the picture declares {picture.width}x{picture.height} pixels, more than the "
            f"{LARGEST_PICTURE_PIXELS // 10**6} million that a picture may have",
            where=str(path),
        )


def _convert(picture: Image.Image, wanted: PictureShape) -> Array:
    if picture.mode.startswith("I"):
        grey = np.asarray(picture).astype(np.float64) / 257.0  # 16 bits: 65535 = 255 * 257
        picture = Image.fromarray(np.clip(np.rint(grey), 0, 255).astype(np.uint8))
    picture = picture.convert("RGB" if wanted.channels == 3 else "L")
    size = (wanted.width or picture.width, wanted.height or picture.height)
    if size != picture.size:
        picture = picture.resize(size, Image.Resampling.BILINEAR)
    return np.asarray(picture).reshape(size[1], size[0], wanted.channels)
