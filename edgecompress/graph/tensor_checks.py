"""Sizes of tensors: dims against the values that are there, in plain Python."""

from __future__ import annotations

import math

import onnx

from edgecompress.core.errors import ModelInvalid

_TYPES = onnx.TensorProto
_BITS: dict[int, int] = {
    _TYPES.FLOAT: 32,
    _TYPES.UINT8: 8,
    _TYPES.INT8: 8,
    _TYPES.UINT16: 16,
    _TYPES.INT16: 16,
    _TYPES.INT32: 32,
    _TYPES.INT64: 64,
    _TYPES.BOOL: 8,
    _TYPES.FLOAT16: 16,
    _TYPES.DOUBLE: 64,
    _TYPES.UINT32: 32,
    _TYPES.UINT64: 64,
    _TYPES.COMPLEX64: 64,
    _TYPES.COMPLEX128: 128,
    _TYPES.BFLOAT16: 16,
    _TYPES.FLOAT8E4M3FN: 8,
    _TYPES.FLOAT8E4M3FNUZ: 8,
    _TYPES.FLOAT8E5M2: 8,
    _TYPES.FLOAT8E5M2FNUZ: 8,
    _TYPES.UINT4: 4,
    _TYPES.INT4: 4,
    _TYPES.FLOAT4E2M1: 4,
    _TYPES.FLOAT8E8M0: 8,
    _TYPES.UINT2: 2,
    _TYPES.INT2: 2,
}
_FIELDS = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data", "string_data")
_COMPLEX = (_TYPES.COMPLEX64, _TYPES.COMPLEX128)


def element_count(tensor: onnx.TensorProto) -> int:
    """Number of elements.

    Raises:
        ModelInvalid: A size is negative.
    """
    if any(size < 0 for size in tensor.dims):
        raise ModelInvalid(f"negative size in shape {tuple(tensor.dims)}", where=_where(tensor))
    return math.prod(tensor.dims)


def packed_bytes(data_type: int, count: int) -> int:
    """Bytes of ``count`` elements in raw form; narrow types are packed.

    Raises:
        ModelInvalid: The type has no raw form.
    """
    if data_type not in _BITS:
        raise ModelInvalid(f"element type {data_type} cannot be stored as raw bytes")
    return (count * _BITS[data_type] + 7) // 8


def check_tensor(tensor: onnx.TensorProto) -> None:
    """Check that a tensor holds as many values as its shape says; external data not yet.

    Raises:
        ModelInvalid: With both numbers.
    """
    count = element_count(tensor)
    if tensor.HasField("segment"):
        raise ModelInvalid("tensor in segments", where=_where(tensor))
    if tensor.data_location == _TYPES.EXTERNAL:
        if tensor.data_type == _TYPES.STRING:
            raise ModelInvalid("strings in external data", where=_where(tensor))
        packed_bytes(tensor.data_type, count)
        return
    filled = [name for name in _FIELDS if len(getattr(tensor, name))]
    if tensor.HasField("raw_data") and (len(tensor.raw_data) or not filled):
        filled.insert(0, "raw_data")
    if len(filled) > 1:
        raise ModelInvalid(f"values in both {' and '.join(filled)}", where=_where(tensor))
    if not filled:
        if count:
            raise ModelInvalid(
                f"shape {tuple(tensor.dims)} without any values", where=_where(tensor)
            )
        return
    _check_length(tensor, filled[0], count)


def _check_length(tensor: onnx.TensorProto, name: str, count: int) -> None:
    found = len(getattr(tensor, name))
    if name == "raw_data":
        needed, unit = packed_bytes(tensor.data_type, count), "bytes"
    elif tensor.data_type in _COMPLEX:
        needed, unit = 2 * count, "numbers"
    else:
        # Types below 8 bits lie packed in int32_data: a byte's worth for each entry.
        bits = _BITS.get(tensor.data_type, 8)
        needed, unit = (count * bits + 7) // 8 if bits < 8 else count, "values"
    if found != needed:
        raise ModelInvalid(
            f"shape {tuple(tensor.dims)} takes {needed} {unit}, {found} are there",
            where=_where(tensor),
        )


def _where(tensor: onnx.TensorProto) -> str:
    return f"tensor {tensor.name!r}"
