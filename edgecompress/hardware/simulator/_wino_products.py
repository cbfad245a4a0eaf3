"""Convolutions of tiles in the Winograd domain, in integers and without any rounding.

Integers are kept in float64 as long as they are exact there, as numpy leaves such products to the
linear algebra library.

Source: Lavin and Gray (arXiv 1509.09308); matrices of `core.winograd`.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from edgecompress.core.errors import VerificationFailed
from edgecompress.core.winograd import transforms
from edgecompress.hardware.simulator.layers import IntArray

FLOAT_EXACT = 2.0**53  # integers below are exact in float64
INT64_LIMIT = 2.0**62

FloatArray = npt.NDArray[np.float64]


@lru_cache(maxsize=64)
def _squared(omega: int, side: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """The transforms of kernels, tiles and results on flattened squares."""
    t = transforms(omega, side)
    kernel, tile, result = (
        np.kron(matrix, matrix).astype(np.float64) for matrix in (t.kernel, t.input, t.output)
    )
    return kernel, tile, result


def spread_kernels(omega: int, kernels: IntArray, side: int) -> FloatArray:
    """Kernels as the multipliers take them.

    Args:
        omega: Side of a tile.
        kernels: (out, in, at most side, at most side), filled up with zeros.
        side: Of the sub-kernels; those of 1 are not transformed.

    Returns:
        (omega x omega or 1, out, in), whole numbers.
    """
    outputs, inputs, rows, columns = kernels.shape
    whole = np.zeros((outputs, inputs, side, side))
    whole[:, :, :rows, :columns] = kernels
    flat = whole.reshape(outputs, inputs, side * side)
    if side > 1:
        flat = flat @ _squared(omega, side)[0].T
    spread: FloatArray = flat.transpose(2, 0, 1)
    return spread


def tile_products(omega: int, maps: IntArray, spread: FloatArray, side: int) -> IntArray:
    """Convolution at stride 1 of what a row step sees, tile by tile in the Winograd domain.

    Args:
        omega: Side of a tile.
        maps: (images, in, rows, columns) with ``side - 1`` more than the results each way.
        spread: (omega x omega or 1, out, in), of `spread_kernels`.
        side: Of the sub-kernels.

    Returns:
        (images, out, rows, columns), exact.
    """
    images, inputs, height, width = maps.shape
    height, width, tile = height + 1 - side, width + 1 - side, omega + 1 - side
    if side == 1:
        direct: IntArray = (spread[0] @ maps.reshape(images, inputs, -1)).astype(np.int64)
        return direct.reshape(images, -1, height, width)
    _, forward, back = _squared(omega, side)
    windows = np.lib.stride_tricks.sliding_window_view(maps, (omega, omega), axis=(2, 3))
    tiles = windows[:, :, ::tile, ::tile]  # (images, in, rows, columns, omega, omega)
    down, across = tiles.shape[2:4]
    flat = tiles.transpose(1, 0, 2, 3, 4, 5).reshape(inputs, -1, omega**2) @ forward.T
    products = spread @ flat.transpose(2, 0, 1)  # (omega x omega, out, tiles)
    peak = float(np.abs(products).max(initial=0.0))
    largest = peak * float(np.abs(back).sum(axis=1).max())
    if peak >= FLOAT_EXACT or largest >= INT64_LIMIT:
        raise VerificationFailed("values are too wide for exact transforms")
    if largest < FLOAT_EXACT:
        results = (back @ products.reshape(omega**2, -1)).astype(np.int64)
    else:
        results = back.astype(np.int64) @ products.reshape(omega**2, -1).astype(np.int64)
    whole = results // transforms(omega, side).kernel_scale ** 2
    square = whole.reshape(tile, tile, -1, images, down, across)
    return square.transpose(3, 2, 4, 0, 5, 1).reshape(images, -1, height, width)
