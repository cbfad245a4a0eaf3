"""Side by side: how long ResNet-18 takes in our estimate, in Vela, in ZigZag and in SCALE-Sim.

    python benchmarks/latency/peers.py

runs ours; Vela and ZigZag too where EDGECOMPRESS_VELA_PYTHON and EDGECOMPRESS_ZIGZAG_PYTHON name
a Python that has them, else their rows stay as they were measured before, marked so. SCALE-Sim
takes minutes a run: its times (wall clock only, two cores that did other work too) are from the
runs whose cycles are in tests/unit/data/scalesim_resnet18.csv, scalesim 3.0.0 with numpy below 2.
The devices are not the same, only the network: what is compared is the time to an answer. Compare
processor time; wall clock depends on what else the machine does.

Ours and Vela's, which measure the values of weights, get the same ones: uniform 8-bit codes, seeded
by layer. ZigZag and SCALE-Sim read no values.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from layered import WEIGHTS, weight_codes
from layered import resnet18 as layers_of_resnet18
from networks import resnet18

from edgecompress.core.grids import GRIDS
from edgecompress.core.tensors import Affine
from edgecompress.graph.model import Model, load_model
from edgecompress.graph.pack import pack
from edgecompress.graph.save import save_model
from edgecompress.graph.work import derive_work
from edgecompress.hardware.cost import cost, estimate, weight_values
from edgecompress.hardware.models._ethos_blocks import choose_blocks
from edgecompress.hardware.target import load_target
from edgecompress.pipeline.estimate import estimate_latency

COMMAND = "python benchmarks/latency/peers.py"
HERE = Path(__file__).parent
RESULTS = HERE / "results" / "peers.json"
RUNS = 9
NOW, EARLIER = "measured in this run", "measured earlier"
UNIFORM, UNREAD = "uniform, 8 bits", "values not read"
OURS = ("ethos-u55-256", "systolic-ws-32", "systolic-os-32", "cortex-m7")
SCALESIM_SECONDS = {"ws 32 x 32": 367, "os 32 x 32": 253, "ws 16 x 16": 474, "os 16 x 16": 556}


@dataclass(frozen=True)
class Took:
    """Seconds of something; processor time is None where it was not measured."""

    wall: float
    processor: float | None


def row(
    names: tuple[str, str], took: Took, cycles: float | None, weights: str, how: str
) -> dict[str, Any]:
    """A tool on a device: the time to an answer, from the network to the cycles."""
    return {
        "tool": names[0],
        "device": names[1],
        "weights": weights,
        "wall_s": rounded(took.wall),
        "processor_s": rounded(took.processor),
        "counting_processor_s": None,
        "pricing_processor_s": None,
        "cycles": None if cycles is None else round(cycles),
        "how": how,
    }


def rounded(seconds: float | None) -> float | None:
    """To three digits."""
    return None if seconds is None else float(f"{seconds:.3g}")


def median_of(work: Callable[[], object]) -> Took:
    """Median of some runs, none of which finds an answer of the one before."""
    walls, processors = [], []
    for _ in range(RUNS):
        cost.cache_clear()
        choose_blocks.cache_clear()
        start = time.perf_counter(), time.process_time()
        work()
        walls.append(time.perf_counter() - start[0])
        processors.append(time.process_time() - start[1])
    return Took(statistics.median(walls), statistics.median(processors))


def child(command: list[str]) -> tuple[Took, dict[str, Any]]:
    """A program that prints JSON, with start-up, as one runs it."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    wall = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Took(wall, spent), json.loads(done.stdout)


def with_uniform_codes(source: Path, output: Path) -> Model:
    """The network with the weights that Vela gets, written and read again."""
    model, table = load_model(source), layers_of_resnet18()
    layers = [layer for layer in table.layers.values() if layer.kind in ("conv", "fc")]
    for layer, found in zip(layers, model.find_layers().layers, strict=True):
        name = model.weight_name(found)
        value = model.ir.graph.initializers[name].const_value
        if value is None:
            raise TypeError(name)
        codes = weight_codes(table, layer, WEIGHTS[0]).transpose(0, 3, 1, 2)
        shaped = codes.reshape([int(size) for size in value.shape.numpy()])
        scale = np.ones((1,) * shaped.ndim, np.float32)
        model.quantized[name] = Affine(shaped, scale, GRIDS["8"])
    pack(model, activations=False, keep_names=False)
    save_model(model, output)
    return load_model(output, normalize=False)


def ours(folder: Path) -> list[dict[str, Any]]:
    """Our estimate of a network in memory: whole, and its two parts."""
    path = folder / "resnet18.onnx"
    onnx.save(resnet18(), path)
    model = with_uniform_codes(path, folder / "uniform.onnx")
    rows = []
    for name in OURS:
        target = load_target(name)
        count = partial(derive_work, model, {}, statistics=weight_values(target))
        cycles = estimate_latency(model, target).latency_s * target.clock_hz
        took = median_of(partial(estimate_latency, model, target))
        weights = UNREAD if weight_values(target) == "none" else UNIFORM
        parts = {
            "counting_processor_s": rounded(median_of(count).processor),
            "pricing_processor_s": rounded(median_of(partial(estimate, count(), target)).processor),
        }
        rows.append(row(("edgecompress", name), took, cycles, weights, NOW) | parts)
    return rows


def vela(python: str) -> list[dict[str, Any]]:
    """Vela, on a file that is written first (a fraction of a second)."""
    command = [python, str(HERE / "vela_run.py"), "resnet18", WEIGHTS[0], "ethos-u55-256"]
    took, found = child([*command, "Ethos_U55_High_End_Embedded", "Shared_Sram"])
    name = f"ethos-u-vela {found['vela']}"
    cycles = float(found["summary"]["cycles_total"])
    return [row((name, "ethos-u55-256"), took, cycles, UNIFORM, NOW)]


def with_kernel_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """A model that ZigZag reads: shapes of every value, and attributes that ONNX leaves out."""
    model = onnx.shape_inference.infer_shapes(model)
    shapes = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Conv":
            given = {"kernel_shape": shapes[node.input[1]][2:], "dilations": [1, 1], "group": 1}
            for name, value in given.items():
                node.attribute.append(onnx.helper.make_attribute(name, value))
    return model


def zigzag(python: str, folder: Path) -> list[dict[str, Any]]:
    """ZigZag on its own 32 x 32 array."""
    path = folder / "zigzag.onnx"
    onnx.save(with_kernel_shapes(resnet18()), path)
    took, found = child([python, str(HERE / "zigzag_run.py"), str(path)])
    name = f"zigzag-dse {found['version']}"
    return [row((name, "tpu_like 32 x 32"), took, found["cycles"], UNREAD, NOW)]


def kept(tool: str) -> list[dict[str, Any]]:
    """Rows of an earlier run of a tool."""
    if not RESULTS.exists():
        return []
    rows = json.loads(RESULTS.read_text())["results"]
    return [one | {"how": EARLIER} for one in rows if one["tool"].startswith(tool)]


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = ours(folder)
        python = os.environ.get("EDGECOMPRESS_VELA_PYTHON", "")
        rows += vela(python) if python else kept("ethos-u-vela")
        python = os.environ.get("EDGECOMPRESS_ZIGZAG_PYTHON", "")
        rows += zigzag(python, folder) if python else kept("zigzag")
    for device, seconds in SCALESIM_SECONDS.items():
        names = "scalesim 3.0.0", device
        rows.append(row(names, Took(seconds, None), None, UNREAD, EARLIER))
    for one in rows:
        print(*one.values())
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"command": COMMAND, "results": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
