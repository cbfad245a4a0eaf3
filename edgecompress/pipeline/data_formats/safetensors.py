"""Safetensors files: an array for each input, and the labels as ``y`` or ``labels``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from edgecompress.core.errors import DataInvalid
from edgecompress.pipeline.data_formats.source import (
    Pick,
    Raw,
    check_declared,
    check_regular,
    count_samples,
    match_names,
)

DTYPES = {
    "BOOL": "?",
    "U8": "u1",
    "I8": "i1",
    "U16": "u2",
    "I16": "i2",
    "U32": "u4",
    "I32": "i4",
    "U64": "u8",
    "I64": "i8",
    "F16": "f2",
    "F32": "f4",
    "F64": "f8",
}


def read(path: Path, inputs: tuple[str, ...], pick: Pick) -> Raw:
    """Samples from a ``.safetensors`` file; arrays that feed nothing are not read.

    Raises:
        DataInvalid: Not a safetensors file, damaged, too large, or an input has no array.
    """
    check_regular(path)
    where = str(path)
    try:
        with safe_open(path, framework="numpy") as file:
            names, labels, unused = match_names(sorted(file.keys()), inputs, where)
            wanted = sorted({*names.values()} | ({labels} if labels else set()))
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in wanted}
            for name in wanted:
                kind = file.get_slice(name).get_dtype()
                if kind not in DTYPES:
                    raise DataInvalid(f"array {name!r} is {kind}, which is not read", where=where)
                check_declared(shapes[name], np.dtype(DTYPES[kind]), f"{where}: {name}")
            total = count_samples(shapes, where)
            rows = pick.indices(total)
            arrays = {name: file.get_tensor(name)[rows] for name in wanted}
    except SafetensorError as error:
        raise DataInvalid(f"not a readable safetensors file: {error}", where=where) from error
    return Raw(
        arrays={target: arrays[name] for target, name in names.items()},
        labels=arrays[labels] if labels else None,
        total=total,
        warnings=(f"arrays not used: {', '.join(unused)}",) if unused else (),
    )
