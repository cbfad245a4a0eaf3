"""One network through Vela; runs where ethos-u-vela is installed and needs nothing else.

    PYTHON_WITH_VELA benchmarks/latency/vela_run.py NETWORK WEIGHTS CONFIG SYSTEM MEMORY

Prints one JSON object: the summary, and for every layer the cycles, bytes and block shapes that
Vela chose. The network is written as a TFLite file with the schema classes that Vela comes with.
"""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
import tempfile
from importlib import import_module, metadata
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import flatbuffers
import numpy as np
from layered import NETWORKS, Layer, Table, weight_codes

SCHEMA = "ethosu.vela.tflite"
INT8, INT32 = 9, 2
OPCODES = {"conv": 3, "depthwise": 4, "add": 0, "maxpool": 17, "avgpool": 1, "fc": 9}
OPTIONS = {"conv": 1, "depthwise": 2, "add": 11, "maxpool": 5, "avgpool": 5, "fc": 8}
SAME, VALID = 0, 1
RELU = 1


class Writer:
    """A TFLite file in the making."""

    def __init__(self, table: Table, values: str) -> None:
        self.table = table
        self.values = values
        self.builder = flatbuffers.Builder(1 << 20)
        self.buffers = [self._table("Buffer", {})]
        self.tensors: list[int] = []
        self.indices: dict[str, int] = {}

    def _table(self, kind: str, fields: dict[str, Any]) -> int:
        """A flatbuffer table; integers are set as they are, the caller makes offsets."""
        module = import_module(f"{SCHEMA}.{kind}")
        getattr(module, f"{kind}Start")(self.builder)
        for name, value in fields.items():
            getattr(module, f"{kind}Add{name}")(self.builder, value)
        return int(getattr(module, f"{kind}End")(self.builder))

    def _offsets(self, offsets: list[int]) -> int:
        self.builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            self.builder.PrependUOffsetTRelative(offset)
        return int(self.builder.EndVector())

    def _numbers(self, values: list[int] | list[float], kind: type) -> int:
        return int(self.builder.CreateNumpyVector(np.array(values, kind)))

    def tensor(
        self, name: str, shape: list[int], kind: int, scale: float, data: bytes | None = None
    ) -> int:
        """A tensor; its index."""
        buffer = 0
        if data is not None:
            content = self.builder.CreateNumpyVector(np.frombuffer(data, np.uint8))
            buffer = len(self.buffers)
            self.buffers.append(self._table("Buffer", {"Data": content}))
        label = self.builder.CreateString(name)
        scales, zeros = self._numbers([scale], np.float32), self._numbers([0], np.int64)
        how = self._table("QuantizationParameters", {"Scale": scales, "ZeroPoint": zeros})
        sizes = self._numbers(shape, np.int32)
        fields = {"Shape": sizes, "Type": kind, "Buffer": buffer, "Name": label}
        self.tensors.append(self._table("Tensor", fields | {"Quantization": how}))
        return len(self.tensors) - 1

    def layer(self, layer: Layer) -> int:
        """An operator with its result; its offset."""
        shape = [1, layer.height, layer.width, layer.channels]
        if layer.kind == "fc":
            shape = [1, layer.channels]
        inputs = [self.indices[name] for name in layer.inputs]
        self.indices[layer.name] = self.tensor(layer.name, shape, INT8, 0.05)
        if layer.kind in ("conv", "depthwise", "fc"):
            codes = weight_codes(self.table, layer, self.values)
            if layer.kind == "fc":
                codes = codes.reshape(layer.channels, -1)
            elif layer.kind == "depthwise":
                codes = codes.transpose(3, 1, 2, 0)
            data = np.ascontiguousarray(codes).tobytes()
            inputs.append(self.tensor(f"{layer.name}_w", list(codes.shape), INT8, 0.01, data))
            bias = bytes(4 * layer.channels)
            inputs.append(self.tensor(f"{layer.name}_b", [layer.channels], INT32, 0.0005, bias))
        return self._operator(layer, inputs)

    def _operator(self, layer: Layer, inputs: list[int]) -> int:
        steps = {"StrideH": layer.stride[0], "StrideW": layer.stride[1]}
        window = {"FilterHeight": layer.kernel[0], "FilterWidth": layer.kernel[1], **steps}
        active = {"FusedActivationFunction": RELU}
        kind, fields = {
            "conv": ("Conv2DOptions", {"Padding": SAME, **steps, **active}),
            "depthwise": (
                "DepthwiseConv2DOptions",
                {"Padding": SAME, **steps, **active, "DepthMultiplier": 1},
            ),
            "add": ("AddOptions", active),
            "maxpool": ("Pool2DOptions", {"Padding": SAME, **window}),
            "avgpool": ("Pool2DOptions", {"Padding": VALID, **window}),
            "fc": ("FullyConnectedOptions", {}),
        }[layer.kind]
        if layer.kind in ("conv", "depthwise"):
            fields |= {"DilationHFactor": 1, "DilationWFactor": 1}
        options = self._table(kind, fields)
        fields = {
            "OpcodeIndex": list(OPCODES).index(layer.kind),
            "Inputs": self._numbers(inputs, np.int32),
            "Outputs": self._numbers([self.indices[layer.name]], np.int32),
        }
        extra = {"BuiltinOptionsType": OPTIONS[layer.kind], "BuiltinOptions": options}
        return self._table("Operator", fields | extra)

    def finish(self) -> bytes:
        """The whole file."""
        first, *layers = self.table.layers.values()
        shape = [1, first.height, first.width, first.channels]
        self.indices[first.name] = self.tensor(first.name, shape, INT8, 0.05)
        operators = self._offsets([self.layer(layer) for layer in layers])
        graph = {
            "Tensors": self._offsets(self.tensors),
            "Inputs": self._numbers([self.indices[first.name]], np.int32),
            "Outputs": self._numbers([self.indices[layers[-1].name]], np.int32),
            "Operators": operators,
        }
        graphs = self._offsets([self._table("SubGraph", graph)])
        codes = [
            self._table(
                "OperatorCode", {"DeprecatedBuiltinCode": code, "BuiltinCode": code, "Version": 1}
            )
            for code in OPCODES.values()
        ]
        model = {
            "Version": 3,
            "OperatorCodes": self._offsets(codes),
            "Subgraphs": graphs,
            "Buffers": self._offsets(self.buffers),
        }
        self.builder.Finish(self._table("Model", model), b"TFL3")
        return bytes(self.builder.Output())


def run(network: str, values: str, config: str, system: str, memory: str) -> dict[str, Any]:
    """Vela's figures of one network on one configuration."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{network}.tflite"
        path.write_bytes(Writer(NETWORKS[network](), values).finish())
        command = [sys.executable, "-m", "ethosu.vela", str(path), "--output-dir", folder]
        command += ["--accelerator-config", config, "--config", "Arm/vela.ini"]
        command += ["--system-config", system, "--memory-mode", memory]
        command += ["--verbose-performance", "--enable-debug-db"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stdout + done.stderr)
        summary = next(Path(folder).glob("*_summary_*.csv"))
        layers = next(Path(folder).glob("*per-layer.csv"))
        return {
            "vela": metadata.version("ethos-u-vela"),
            "summary": _rows(summary)[-1],
            "layers": _rows(layers),
            "debug": _debug(next(Path(folder).glob("*_debug.xml"))),
        }


def _rows(path: Path) -> list[dict[str, str]]:
    """A CSV file as dictionaries."""
    with path.open(newline="") as lines:
        return list(csv.DictReader(lines))


def _debug(path: Path) -> dict[str, list[dict[str, str]]]:
    """Tables of Vela's debug database."""
    found = {}
    for table in ElementTree.fromstring(path.read_text()).iter("table"):
        text = re.sub(r"^\s+|\s+$", "", table.text or "")
        found[table.get("name", "")] = list(
            csv.DictReader(text.splitlines(), skipinitialspace=True)
        )
    return found


if __name__ == "__main__":
    print(json.dumps(run(*sys.argv[1:6])))
