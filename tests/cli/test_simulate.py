"""``simulate`` and ``evaluate --target`` on a small network that was quantized before."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from installed import need

import edgecompress
from edgecompress.cli.entry import main
from edgecompress.core.simulation import SimulationReport
from edgecompress.graph.model import load_model
from edgecompress.hardware.models import _winograd
from edgecompress.hardware.target import TARGET_FOLDER, list_targets, load_target
from edgecompress.pipeline import machines
from edgecompress.pipeline.estimate import estimate_latency

SCHEMAS = Path(edgecompress.__file__).parent / "report" / "schemas"
LAYERS = ["node_Conv_93", "node_Conv_101", "node_linear"]
ESTIMATED = [
    "bitserial-ultra96",
    "bitfusion-45nm",
    "lutmac-ultra96",
    "systolic-ws-32",
    "winocnn-zcu102-w6",
]
EXACT = [name for name in list_targets() if load_target(name).family in machines.MACHINES]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("simulate")


@pytest.fixture(scope="module")
def small(folder: Path, sample_models: Path) -> Path:
    """A network with 4-bit weights and 8-bit activations."""
    output = folder / "small.onnx"
    edgecompress.quantize(
        sample_models / "digits_cnn.onnx",
        output,
        edgecompress.QuantizeOptions(bits="4", method="l2", activations=8),
        data=str(sample_models / "digits_calibration.npz"),
        calibration=64,
    )
    return output


@pytest.fixture(scope="module")
def ternary(folder: Path, sample_models: Path) -> Path:
    """Depthwise and pointwise convolutions with ternary weights; the rest as floats."""
    output = folder / "ternary.onnx"
    edgecompress.quantize(
        sample_models / "digits_dscnn.onnx",
        output,
        edgecompress.QuantizeOptions(bits="ternary", method="l2"),
    )
    return output


@pytest.fixture(scope="module")
def data(sample_models: Path) -> str:
    return str(sample_models / "digits_test.npz")


def document(path: Path, schema: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    published = json.loads((SCHEMAS / f"{schema}.json").read_text(encoding="utf-8"))
    jsonschema.validate(found, published)
    return found


@pytest.mark.parametrize("target", EXACT)
def test_every_machine_agrees_on_real_layers(target: str, small: Path, data: str) -> None:
    report = edgecompress.simulate(small, target, data=data, rows=4, layers=LAYERS)
    assert len(report.layers) == 3
    assert report.agrees, [layer for layer in report.layers if not layer.cycles_agree]
    for layer in report.layers:
        assert layer.rows <= 4
        assert not layer.input_quantized_here
        assert layer.weight_bits == layer.stored_bits == 4
    assert any("half steps" in note for note in report.notes)


@pytest.mark.parametrize("bits", ["ternary", "2", "3", "4", "8"])
def test_cycles_are_those_of_the_estimate(
    bits: str, folder: Path, sample_models: Path, data: str
) -> None:
    """Every cycle that is counted is one that ``estimate-latency`` prices, at every width.

    On WinoCNN all cycles of an operator are compared, memory ports with them, and the estimate is
    of the array as the simulator executes it: with the row steps that its buffers allow, and the
    share of its ports rounded to a fraction.
    """
    file = folder / f"cycles-{bits}.onnx"
    edgecompress.quantize(
        sample_models / "digits_cnn.onnx",
        file,
        edgecompress.QuantizeOptions(bits=bits, method="l2", activations=8),
        data=str(sample_models / "digits_calibration.npz"),
        calibration=64,
    )
    width = 2 if bits == "ternary" else int(bits)
    for name in ESTIMATED:
        target = load_target(name)
        strict = target
        if isinstance(target.parameters, _winograd.Parameters):
            strict, _ = machines.wino_array(target, target.parameters)
        estimated = estimate_latency(load_model(file, normalize=False), strict)
        costs = {cost.name: cost for cost in estimated.costs}
        report = edgecompress.simulate(file, name, data=data, samples=1, rows=0, layers=LAYERS)
        assert report.agrees
        for layer in report.layers:
            assert layer.weight_bits == layer.stored_bits == width
            assert layer.rows == layer.all_rows
            cost = costs[layer.name]
            if strict is target:
                assert layer.cycles == cost.compute_cycles, (name, layer.name)
            else:
                assert layer.cycles == math.ceil(round(cost.total_cycles, 6)), (name, layer.name)


def test_cycles_of_four_bits_by_hand(small: Path, data: str) -> None:
    """64 pixels in 7 tiles, 48 channels in 5, 288 terms in 2 steps, 8 x 4 planes, 12 to the end."""
    (layer,) = edgecompress.simulate(
        small, "bitserial-ultra96", data=data, samples=1, rows=0, layers=["node_Conv_95"]
    ).layers
    assert layer.cycles == 7 * 5 * 2 * 8 * 4 + 12


def test_weights_that_are_wider_than_the_array_are_refused(
    small: Path, data: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (TARGET_FOLDER / "bitserial-ultra96.toml").read_text(encoding="utf-8")
    narrow = folder / "narrow.toml"
    narrow.write_text(text.replace("weight_bits = 8", "weight_bits = 3"), encoding="utf-8")
    assert main(["simulate", str(small), "--target", str(narrow), "--data", data, "--quiet"]) == 5
    assert "weights of 4 bits on an array of 3 bits" in capsys.readouterr().err


def test_four_bits_run_on_an_array_of_four_bits_in_verilog(
    small: Path, data: str, folder: Path
) -> None:
    need("iverilog", "vvp")
    report, output = folder / "rtl.json", folder / "rtl"
    narrow = ["--rows", "8", "--columns", "8", "--set", "weight_stream.weight_bits=4"]
    arguments = [str(small), "--target", "systolic-ws-32", *narrow, "--data", data]
    arguments += ["--pixels", "8", "-o", str(output), "--run", "--report", str(report), "--quiet"]
    assert main(["rtl", *arguments]) == 0
    found = document(report, "rtl-report")
    assert found["run"]["passed"]
    assert "4-bit weights" in found["operands"]
    assert any("half steps" in note for note in found["notes"])
    words = (output / "weights.hex").read_text(encoding="ascii").split()
    assert {len(word) for word in words} == {8}  # a digit of 4 bits for each of 8 columns


@pytest.mark.parametrize("target", ["systolic-ws-32", "systolic-os-32", "tdla-z7020"])
def test_depthwise_and_float_inputs(target: str, ternary: Path, data: str) -> None:
    report = edgecompress.simulate(ternary, target, data=data, rows=8, samples=2)
    assert report.agrees
    assert {layer.groups for layer in report.layers} > {1, 32}
    assert all(layer.input_quantized_here for layer in report.layers)
    assert any("quantized to 8 bits" in note for note in report.notes)


def test_the_command_in_all_forms(
    small: Path, data: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [folder / f"r.{suffix}" for suffix in ("json", "md", "html", "txt")]
    reports = [part for file in files for part in ("--report", str(file))]
    arguments = ["simulate", str(small), "--target", "systolic-ws-32", "--data", data, *reports]
    assert main([*arguments, "--quiet"]) == 0
    shown = capsys.readouterr().out
    assert "every sum is onnxruntime's, every cycle count that of the cost model" in shown
    found = document(files[0], "simulation-report")
    assert found["agrees"]
    first = found["layers"][0]
    # 8 x 8 pixels, one 3 x 3 kernel for each of 32 channels: 32 + (64 + 32 + 32 - 2) cycles.
    assert (first["rows"], first["inner"], first["columns"]) == (64, 9, 32)
    assert first["cycles"] == first["predicted_cycles"] == 158
    for file in files[1:]:
        assert "systolic-ws-32" in file.read_text(encoding="utf-8")


def test_one_layer_whole_and_in_part(small: Path, data: str) -> None:
    layer = edgecompress.simulate(small, "systolic-os-32", data=data, rows=3).layers[1]
    (whole,) = edgecompress.simulate(
        small, "systolic-os-32", data=data, samples=2, rows=0, layers=[layer.name]
    ).layers
    assert (layer.rows, layer.all_rows) == (3, 64)
    assert (whole.rows, whole.all_rows) == (128, 128)
    assert whole.multiplications == 128 * 288 * 48


def test_a_truncating_datapath_has_a_signal_to_noise_ratio(small: Path, data: str) -> None:
    report = edgecompress.simulate(small, "winocnn-zcu102-w6", data=data)
    fine = edgecompress.simulate(small, "winocnn-zcu102-w4", data=data)
    for coarse_layer, fine_layer in zip(report.layers[:-1], fine.layers[:-1], strict=True):
        assert coarse_layer.snr_db is not None
        assert fine_layer.snr_db is not None
        # 9 bits of accumulator against 18
        assert 0 < coarse_layer.snr_db < fine_layer.snr_db < np.inf
    assert any("published widths" in note for note in report.notes)


def test_evaluate_on_a_target(
    small: Path, data: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = folder / "e.json"
    arguments = ["evaluate", str(small), "--data", data, "--limit", "100", "--quiet"]
    assert main([*arguments, "--target", "winocnn-zcu102-w6", "--report", str(file)]) == 0
    assert "Computed by winocnn-zcu102-w6" in capsys.readouterr().out
    found = document(file, "evaluation-report")["on_target"]
    assert found["truncates"]
    assert len(found["layers"]) == 6
    assert found["fidelity"]["accuracy"] < found["fidelity"]["reference_accuracy"]
    assert found["fidelity"]["accuracy"] < found["corrected"]["accuracy"]
    exact = edgecompress.evaluate(small, data, limit=100, target="systolic-ws-32").on_target
    assert exact is not None
    assert not exact.truncates
    assert exact.corrected is None
    assert exact.fidelity.top1_agreement == 1
    assert exact.outputs[0].snr_db > 40


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--target", "ethos-u55-128"], 5, "there is no simulator for the family 'ethos_u'"),
        (["--target", "ethos-u55-128"], 5, "systolic_is, systolic_os, systolic_ws"),
        (["--target", "systolic-ws-32", "--layer", "no"], 2, "no layer 'no' in the graph"),
        (["--target", "no"], 7, "no target 'no'"),
    ],
)
def test_refusals(
    arguments: list[str],
    code: int,
    message: str,
    small: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["simulate", str(small), *arguments]) == code
    assert message in capsys.readouterr().err


def test_float_networks_are_refused(
    sample_models: Path, data: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(sample_models / "digits_cnn.onnx")
    for command in ("simulate", "evaluate"):
        arguments = [command, model, "--target", "systolic-ws-32", "--data", data]
        assert main([*arguments, "--quiet"]) == 5
        assert "stored as floats" in capsys.readouterr().err


@pytest.mark.parametrize("broken", ["cycles", "outputs"])
def test_disagreement_is_an_error_after_the_report(
    broken: str,
    small: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    good = machines.MACHINES["systolic_ws"]

    def bad(*what: Any) -> machines.MachineRun:
        ran = good(*what)
        if broken == "cycles":
            return dataclasses.replace(ran, predicted_cycles=ran.predicted_cycles + 1)
        wrong = dataclasses.replace(ran.simulated, outputs=ran.simulated.outputs + 1)
        return dataclasses.replace(ran, simulated=wrong)

    monkeypatch.setitem(machines.MACHINES, "systolic_ws", bad)
    assert main(["simulate", str(small), "--target", "systolic-ws-32", "--quiet"]) == 9
    shown = capsys.readouterr()
    assert "DIFFER" in shown.out
    assert "disagrees" in shown.err


def test_without_data_the_inputs_are_drawn(small: Path) -> None:
    first, again, other = (
        edgecompress.simulate(small, "systolic-is-32", seed=seed) for seed in (1, 1, 2)
    )
    assert isinstance(first, SimulationReport)
    assert "RANDOM" in first.data_source
    assert first == again
    assert first.data_source != other.data_source
