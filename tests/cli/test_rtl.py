"""``rtl``: files, runs and resources, with random operands and with a layer of a small network."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from installed import need

import edgecompress
from edgecompress.cli.entry import main
from edgecompress.core.rtl import RtlReport
from edgecompress.hardware.target import TARGET_FOLDER
from edgecompress.report.forms import render

SCHEMA = Path(edgecompress.__file__).parent / "report" / "schemas" / "rtl-report.json"
SMALL = ("--rows", "4", "--columns", "4")


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory, sample_models: Path) -> Path:
    """A network with ternary weights and 8-bit activations."""
    output = tmp_path_factory.mktemp("rtl") / "small.onnx"
    edgecompress.quantize(
        sample_models / "digits_cnn.onnx",
        output,
        edgecompress.QuantizeOptions(bits="ternary", method="l2", activations=8),
        data=str(sample_models / "digits_calibration.npz"),
        calibration=64,
    )
    return output


def run(arguments: list[str], tmp_path: Path) -> tuple[int, dict[str, Any]]:
    """Exit code and JSON report."""
    report = tmp_path / "report.json"
    code = main(["rtl", *arguments, "--report", str(report), "--quiet"])
    document = json.loads(report.read_text(encoding="utf-8"))
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    jsonschema.validate(document, schema, cls=jsonschema.Draft202012Validator)
    return code, document


@pytest.mark.parametrize(
    ("target", "settings"),
    [
        ("systolic-ws-32", SMALL),
        ("systolic-os-32", (*SMALL, "--set", "multiplier=lut")),
        ("tdla-z7020", ("--set", "output_lanes=2", "--set", "input_lanes=2", "--set", "window=3")),
    ],
)
def test_random_operands_run_and_agree(
    target: str, settings: tuple[str, ...], tmp_path: Path
) -> None:
    need("iverilog", "vvp")
    arguments = ["--target", target, *settings, "-o", str(tmp_path / "out"), "--run"]
    code, document = run(arguments, tmp_path)
    assert code == 0
    assert document["run"]["passed"]
    assert document["run"]["cycles"] == document["predicted_cycles"] > 0
    assert document["model"] is None
    assert "random codes, seed 0" in document["data_source"]


@pytest.mark.parametrize(
    ("target", "settings"),
    [
        ("systolic-ws-32", SMALL),
        ("tdla-z7020", ("--set", "output_lanes=2", "--set", "input_lanes=1", "--set", "window=3")),
    ],
)
def test_a_layer_of_a_network_runs_and_agrees(
    target: str, settings: tuple[str, ...], quantized: Path, sample_models: Path, tmp_path: Path
) -> None:
    need("iverilog", "vvp")
    data = str(sample_models / "digits_test.npz")
    output = tmp_path / "out"
    arguments = [str(quantized), "--target", target, *settings, "--data", data, "--pixels", "16"]
    code, document = run([*arguments, "-o", str(output), "--run"], tmp_path)
    assert code == 0
    assert document["run"]["cycles"] == document["predicted_cycles"]
    assert document["layer"]
    assert document["model"]["path"] == str(quantized)
    written = {Path(fact["path"]).name for fact in document["files"]}
    assert written == {path.name for path in output.iterdir()}
    assert any(name.endswith("_bench.v") for name in written)


def test_what_is_written_does_not_depend_on_the_run(tmp_path: Path) -> None:
    for name in ("a", "b"):
        arguments = ["--target", "systolic-os-32", *SMALL, "-o", str(tmp_path / name)]
        assert main(["rtl", *arguments, "--seed", "7", "--quiet"]) == 0
    files = {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "b").iterdir()}


def test_resources_are_counted_beside_the_prediction(tmp_path: Path) -> None:
    need("yosys")
    arguments = ["--target", "systolic-ws-32", "--rows", "1", "--columns", "2"]
    code, document = run([*arguments, "-o", str(tmp_path / "out"), "--synthesize"], tmp_path)
    found = document["synthesis"]
    assert code == 0
    assert found["dsp"] == found["predicted_dsp"] == 2
    assert found["lut"] == pytest.approx(found["predicted_lut"], rel=0.15)


def test_a_folder_with_files_is_not_written_into(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.v").write_text("module mine; endmodule\n")
    arguments = ["rtl", "--target", "systolic-ws-32", *SMALL, "-o", str(tmp_path), "--quiet"]
    assert main(arguments) == 8
    assert "the folder is not empty" in capsys.readouterr().err
    assert main([*arguments, "--force"]) == 0
    assert (tmp_path / "mine.v").is_file()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--target", "roofline-generic"], 5, "families with a generator: systolic_os"),
        (["--target", "systolic-ws-32", "--set", "rows_of_array=4"], 2, "has no number"),
        (["--target", "systolic-ws-32", "--set", "array_rows=4,8"], 2, "has 2 values"),
        (["--target", "systolic-ws-32", "--set", "multiplier=abacus"], 7, "multiplier"),
        (
            ["--target", "systolic-ws-32", "--set", "accumulator_bits=12"],
            7,
            "do not hold a product",
        ),
        (["--target", "systolic-os-32", "--set", "activation_bits=20"], 7, "20 and 8 bits"),
        (["--target", "tdla-z7020", "--set", "accumulator_bits=12"], 7, "the trees have 16"),
        (["--target", "winocnn-zcu102-w4", "--set", "channels_per_element=1"], 7, "two channels"),
        (["--target", "systolic-ws-32", "--layer", "conv1"], 2, "a layer without a model"),
    ],
)
def test_what_cannot_be_generated_is_refused(
    arguments: list[str],
    code: int,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["rtl", *arguments, "-o", str(tmp_path / "out"), "--quiet"]) == code
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_float_layers_are_refused_with_the_reason(
    sample_models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(sample_models / "digits_cnn.onnx")
    output = str(tmp_path / "out")
    assert main(["rtl", model, "--target", "systolic-ws-32", "-o", output, "--quiet"]) == 5
    assert "quantize the model first" in capsys.readouterr().err


def test_a_design_that_is_too_narrow_says_what_to_change(
    quantized: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["rtl", str(quantized), "--target", "systolic-ws-32", "-o", str(tmp_path / "out")]
    assert main([*arguments, "--set", "activation_bits=6", "--quiet"]) == 5
    told = capsys.readouterr().err
    assert "8-bit activations on an array of 6 bits" in told
    assert "--set changes a number of the target" in told
    assert "quantize the model first" not in told


def test_a_target_with_narrow_sums_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shipped = (TARGET_FOLDER / "systolic-is-32.toml").read_text(encoding="utf-8")
    file = tmp_path / "mine.toml"
    file.write_text(shipped.replace("accumulator_bits = 32", "accumulator_bits = 15"))
    assert main(["targets", "check", str(file)]) == 7
    assert "sums of 15 bits" in capsys.readouterr().out


def test_a_missing_simulator_says_how_to_install_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    arguments = ["rtl", "--target", "systolic-ws-32", *SMALL, "-o", str(tmp_path / "out")]
    assert main([*arguments, "--run", "--quiet"]) == 7
    assert "apt-get install iverilog" in capsys.readouterr().err


def test_a_wrong_result_is_exit_code_9(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cost model that is a cycle off is told, in the report and by the exit code."""
    need("iverilog", "vvp")
    from edgecompress.hardware.rtl import systolic_ws

    wrong = dataclasses.replace(systolic_ws.RTL, cycles_of=lambda shape, layer: 1)
    monkeypatch.setattr(systolic_ws, "RTL", wrong)
    arguments = ["rtl", "--target", "systolic-ws-32", *SMALL, "-o", str(tmp_path / "out")]
    assert main([*arguments, "--run", "--quiet"]) == 9
    told = capsys.readouterr()
    assert "the cost model says 1" in told.out
    assert "disagrees" in told.err


@pytest.mark.parametrize("form", ["text", "markdown", "html"])
def test_every_form_of_the_report(form: str) -> None:
    report = RtlReport(
        target="mine",
        family="systolic_ws",
        target_source="a drawing",
        settings={"ROWS": 4},
        files=(),
        model=None,
        layer="<b>conv</b>",
        operands="product of 1 x 2 and 2 x 3",
        data_source="random codes, seed 0",
        predicted_cycles=1234,
        run=None,
        synthesis=None,
    )
    text = render(report, form)
    assert "1,234" in text
    assert "written, not run" in text
    assert form != "html" or "<b>conv</b>" not in text
