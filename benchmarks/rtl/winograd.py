"""Generated Winograd hardware against its simulator, and its look-up tables against the model.

python -m benchmarks.rtl.winograd             # both
python -m benchmarks.rtl.winograd agreement   # cycles and values, a few minutes
python -m benchmarks.rtl.winograd synthesis   # Yosys, what is not in the results yet

The closed form of the look-up tables is fitted on the elements called ``fit``; those called
``check`` are larger and were not used for it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgecompress.core.winograd import IntArray
from edgecompress.hardware.rtl import winograd_pe
from edgecompress.hardware.rtl.bench import run_bench
from edgecompress.hardware.rtl.synthesis import synthesize, yosys_version
from edgecompress.hardware.rtl.wino_resources import element_resources, tile_resources
from edgecompress.hardware.rtl.winocnn_tile import tile_bench, tile_cycles, tile_design
from edgecompress.hardware.simulator.layers import IntegerConv, exact_outputs
from edgecompress.hardware.simulator.wino_element import (
    Datapath,
    published_datapath,
    simulate_element,
)
from edgecompress.hardware.simulator.wino_tile import WinoTile, corrected, load, run_loaded

RESULTS = Path(__file__).parent / "results" / "winograd.json"
ELEMENTS, TILES = 48, 48
KERNELS = ((1, 1), (3, 3), (5, 5), (3, 1), (1, 2))


def element_case(seed: int) -> tuple[Datapath, IntArray, IntArray]:
    """A processing element, its tiles and its kernels: all modes, every third one truncating."""
    generator = np.random.default_rng([seed, 1])
    omega, kernel = (4, 6)[seed % 2], (3, 1)[seed // 2 % 2]
    channels = int(generator.integers(1, 5))
    datapath = (
        published_datapath(omega, channels)
        if seed % 3 == 2
        else Datapath(
            omega=omega,
            channels=channels,
            kernel_bits=int(generator.integers(2, 9)),
            output_bits=int(generator.integers(22, 34)),
        )
    )
    groups, passes = (int(n) for n in generator.integers(1, 5, 2))
    codes, weights = 1 << (datapath.input_bits - 1), 1 << (datapath.kernel_bits - 1)
    shape = (groups, passes, channels)
    tiles = generator.integers(-codes, codes, (*shape, omega, omega))
    return datapath, tiles, generator.integers(-weights, weights, (*shape, kernel, kernel))


def tile_case(seed: int) -> tuple[WinoTile, IntegerConv]:
    """A tile and a convolution: all kernels, strides, pads; every third one truncating."""
    generator = np.random.default_rng([seed, 2])
    omega, kernel = (4, 6)[seed % 2], KERNELS[seed % 5]
    channels = int(generator.integers(2, 5 if omega == 4 else 4))
    datapath = Datapath(omega=omega, channels=channels)
    if seed % 3 == 2:
        datapath = published_datapath(omega, channels)
    tile = WinoTile(
        datapath=datapath,
        rows=int(generator.integers(1, 4)),
        columns=int(generator.integers(1, 4 if omega == 4 else 3)),
        images=int(generator.integers(1, 3)),
        load_words=int(generator.choice([2, 512])),
    )
    weights = 1 << (datapath.kernel_bits - 1)
    inputs, outputs = (int(n) for n in generator.integers(1, 9, 2))
    size = (tile.images, inputs, *(int(n) for n in generator.integers(5, 11, 2)))
    stride = int(generator.integers(1, 3))
    return tile, IntegerConv(
        inputs=generator.integers(0, 256, size),
        weights=generator.integers(-weights, weights, (outputs, inputs, *kernel)),
        zero_point=int(generator.integers(0, 256)),
        stride=(stride, stride),
        dilation=(1, 1 + int(kernel == (3, 1) and generator.integers(0, 2))),
        pads=tuple(int(n) for n in generator.integers(0, 2, 4)),
        weight_bits=datapath.kernel_bits,
        input_signed=False,
    )


def element_agreement(seed: int) -> dict[str, Any]:
    """One processing element in Verilog and in the simulator."""
    datapath, tiles, kernels = element_case(seed)
    run = simulate_element(datapath, tiles, kernels)
    found = run_bench(winograd_pe.bench(datapath, tiles, kernels, run))
    return {
        "seed": seed,
        "omega": datapath.omega,
        "channels": datapath.channels,
        "kernel": kernels.shape[-1],
        "exact": datapath.truncation is None,
        "results": run.outputs.size,
        "cycles": run.cycles,
        "rtl_cycles": found.cycles,
        "agreed": found.passed and found.cycles == run.cycles,
    }


def tile_agreement(seed: int) -> dict[str, Any]:
    """One tile in Verilog, in the simulator and by the closed form; exact values are also the
    plain sums."""
    tile, layer = tile_case(seed)
    loaded = load(tile, layer)
    raw, cycles = run_loaded(tile, loaded)
    found = run_bench(tile_bench(tile, loaded, raw))
    exact = tile.datapath.truncation is None
    right = not exact or np.array_equal(corrected(tile, loaded, raw), exact_outputs(layer))
    return {
        "seed": seed,
        "omega": tile.datapath.omega,
        "rows": tile.rows,
        "columns": tile.columns,
        "images": tile.images,
        "channels": tile.datapath.channels,
        "kernel": list(layer.weights.shape[2:]),
        "sub_kernel": loaded.loops.kernel,
        "exact": exact,
        "results": raw.size,
        "cycles": cycles,
        "formula_cycles": tile_cycles(tile, loaded.loops),
        "rtl_cycles": found.cycles,
        "agreed": found.passed
        and found.cycles == cycles == tile_cycles(tile, loaded.loops)
        and bool(right),
    }


def elements() -> Iterator[tuple[str, Datapath]]:
    """Elements that are synthesised: (fit or check, element)."""
    for use, shapes in (
        ("fit", ((4, 1), (4, 2), (6, 1))),
        ("check", ((4, 4), (6, 2), (6, 4))),
    ):
        for omega, channels in shapes:
            plain = Datapath(omega=omega, channels=channels)
            yield use, plain
            yield use, published_datapath(omega, channels)
            yield use, replace(plain, kernel_bits=4, output_bits=24)


def element_row(use: str, datapath: Datapath) -> dict[str, Any]:
    """What is known of an element before it is synthesised."""
    predicted = element_resources(datapath)
    return {
        "use": use,
        "omega": datapath.omega,
        "channels": datapath.channels,
        "kernel_bits": datapath.kernel_bits,
        "output_bits": datapath.output_bits,
        "exact": datapath.truncation is None,
        "multipliers": datapath.omega**2 * datapath.channels,
        "predicted_lut": predicted.lut,
        "predicted_dsp": predicted.dsp,
    }


def tiles() -> Iterator[tuple[str, WinoTile]]:
    """Whole tiles that are synthesised: (fit or check, tile)."""
    for use, omega, rows, columns in (
        ("fit", 4, 1, 1),
        ("fit", 4, 2, 1),
        ("check", 4, 2, 2),
        ("check", 6, 1, 1),
    ):
        yield (
            use,
            WinoTile(
                datapath=Datapath(omega=omega, channels=2),
                rows=rows,
                columns=columns,
                input_words=1024,
                kernel_words=512,
                output_words=512,
            ),
        )


def tile_row(use: str, tile: WinoTile) -> dict[str, Any]:
    """What is known of a tile before it is synthesised."""
    predicted = tile_resources(tile)
    return {
        "use": use,
        "omega": tile.datapath.omega,
        "rows": tile.rows,
        "columns": tile.columns,
        "channels": tile.datapath.channels,
        "predicted_lut": predicted.lut,
        "predicted_dsp": predicted.dsp,
        "predicted_bram18": predicted.bram18,
    }


def tile_synthesis(known: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of all tiles."""
    shape = ("omega", "rows", "columns", "channels")
    measured = {tuple(row[name] for name in shape): row for row in known}
    rows = []
    for use, tile in tiles():
        row = tile_row(use, tile)
        old = measured.get(tuple(row[name] for name in shape))
        if old is None:
            found = synthesize(tile_design(tile), time_limit_s=3600)
            old = {"lut": found.lut, "dsp": found.dsp, "bram18": found.bram18}
            sys.stderr.write(f"{row | old}\n")
        row |= {name: old[name] for name in ("lut", "dsp", "bram18")}
        rows.append(row | {"lut_error": round(row["predicted_lut"] / row["lut"] - 1, 4)})
    return rows


def synthesis(known: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """All rows, again after each new one."""
    shape = ("omega", "channels", "kernel_bits", "output_bits", "exact")
    measured = {tuple(row[name] for name in shape): row for row in known}
    rows: list[dict[str, Any]] = []
    for use, datapath in elements():
        row = element_row(use, datapath)
        old = measured.pop(tuple(row[name] for name in shape), None)
        if old is None:
            begin = time.perf_counter()
            found = synthesize(winograd_pe.design(datapath), time_limit_s=3600)
            old = {"lut": found.lut, "dsp": found.dsp, "flip_flops": found.flip_flops}
            old["seconds"] = round(time.perf_counter() - begin, 1)
            sys.stderr.write(f"{row | old}\n")
        row |= {name: old[name] for name in ("lut", "dsp", "flip_flops", "seconds")}
        rows.append(row | {"lut_error": round(row["predicted_lut"] / row["lut"] - 1, 4)})
        yield [*rows, *measured.values()]


def main(parts: tuple[str, ...]) -> None:
    names = ("elements", "tiles", "synthesis", "tile_synthesis")
    document: dict[str, Any] = {name: [] for name in names}
    if RESULTS.is_file():
        document |= json.loads(RESULTS.read_text())
    if "agreement" in parts:
        document["elements"] = [element_agreement(seed) for seed in range(ELEMENTS)]
        document["tiles"] = [tile_agreement(seed) for seed in range(TILES)]
        _write(document)
    if "synthesis" in parts:
        document["tool"] = f"{yosys_version()}, synth_xilinx -family xcup"
        for rows in synthesis(document["synthesis"]):
            document["synthesis"] = rows
            _write(document)
        document["tile_synthesis"] = tile_synthesis(document["tile_synthesis"])
        _write(document)


def _write(document: dict[str, Any]) -> None:
    RESULTS.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main(tuple(sys.argv[1:]) or ("agreement", "synthesis"))
