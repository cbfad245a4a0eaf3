"""What a run reads is never what it writes, whatever ``--force`` says."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgecompress.cli.entry import main
from edgecompress.core.errors import InputOutputFailed
from edgecompress.pipeline.outputs import STATE_SCHEMA, check_checkpoint, check_output

NEVER = "the output is the input, which is never overwritten"
INPUTS = {
    "train": ("--data", "--test-data", "--recipe", "--from"),
    "compress": ("MODEL", "--data", "--test-data", "--recipe", "--plan", "--target"),
    "decompose": ("MODEL", "--data", "--test-data", "--recipe", "--plan", "--target"),
    "quantize": ("MODEL", "--data", "--test-data", "--recipe", "--plan", "--target"),
}
CASES = [(command, option) for command, options in INPUTS.items() for option in options]


def refused(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    assert main([str(part) for part in (*arguments, "--quiet")]) == 8
    return capsys.readouterr().err.splitlines()[0]


@pytest.fixture
def written(sample_models: Path, tmp_path: Path) -> dict[str, Path]:
    """A file for each kind of input; what is in them matters little."""
    names = {"MODEL": "m.onnx", "--recipe": "r.toml", "--target": "t.toml"}
    found = {
        option: tmp_path / names.get(option, option.strip("-") + ".npz")
        for options in INPUTS.values()
        for option in options
    }
    shutil.copy(sample_models / "digits_cnn.onnx", found["MODEL"])
    found["--recipe"].write_text("seed = 1\n")
    for option in ("--data", "--test-data"):
        np.savez(found[option], x=np.zeros((4, 3)), y=np.arange(4) % 2)
    for option in ("--plan", "--from", "--target"):
        found[option].write_bytes(b"what was here")
    return found


@pytest.mark.parametrize(("command", "option"), CASES)
def test_an_output_that_is_an_input_is_refused_even_with_force(
    command: str,
    option: str,
    written: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    target = written[option]
    before = target.read_bytes()
    start = ("train", "--arch", "mlp") if command == "train" else (command, written["MODEL"])
    given: tuple[str | Path, ...] = () if option == "MODEL" else (option, target)
    if command == "train" and option != "--data":
        given = (*given, "--data", written["--data"])
    # Another name of the same file is the same file.
    (tmp_path / "link").symlink_to(target)
    for output in (target, tmp_path / "link"):
        said = refused(capsys, *start, *given, "-o", output, "--force")
        assert said == f"error: {output}: {NEVER}"
    assert target.read_bytes() == before
    if option == "MODEL" or target.suffix == ".npz":
        return
    report = tmp_path / "r.json"
    target.rename(report)
    again = (option, report, *given[2:], "-o", tmp_path / "new.onnx", "--report", report)
    if option != "--recipe":  # that one has to be TOML to come so far
        said = refused(capsys, *start, *again, "--force")
        assert said == f"error: {report}: would overwrite another file of this run"
        assert report.read_bytes() == before


@pytest.fixture
def parted(sample_models: Path, tmp_path: Path) -> Path:
    """A model whose tensors lie in files beside it, under names that reports could have."""
    proto = onnx.load(sample_models / "digits_cnn.onnx")
    weights = [tensor for tensor in proto.graph.initializer if tensor.data_type == 1]
    for place, tensor in enumerate(weights):
        name = f"part{place}.json"
        (tmp_path / name).write_bytes(onnx.numpy_helper.to_array(tensor).tobytes())
        onnx.external_data_helper.set_external_data(tensor, name)
        tensor.ClearField("raw_data")
        tensor.ClearField("float_data")
    assert len(weights) > 1
    path = tmp_path / "parted.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


@pytest.mark.parametrize("command", ["compress", "decompose", "quantize"])
@pytest.mark.parametrize("option", ["-o", "--save-plan", "--report"])
def test_data_beside_a_model_are_inputs_as_well(
    command: str, option: str, parted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    part = tmp_path / "part1.json"
    before = part.read_bytes()
    given = (option, part) if option == "-o" else (option, part, "-o", tmp_path / "new.onnx")
    said = refused(capsys, command, parted, *given, "--force")
    what = NEVER if option == "-o" else "would overwrite another file of this run"
    assert said == f"error: {part}: {what}"
    assert part.read_bytes() == before


@pytest.mark.parametrize(
    "arguments",
    [
        ("inspect", "MODEL"),
        ("evaluate", "sample.onnx", "--reference", "MODEL", "--data", "random:0"),
        ("evaluate", "MODEL", "--data", "random:0"),
        ("estimate-latency", "MODEL", "--target", "cortex-m7"),
        ("explore", "MODEL", "--target", "systolic-ws-32"),
        ("simulate", "MODEL", "--target", "systolic-ws-32"),
        ("rtl", "MODEL", "--target", "systolic-ws-32", "-o", "rtl"),
        ("targets", "calibrate", "cortex-m7", "--measurements", "t.csv", "--model", "MODEL"),
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_reports_take_the_place_of_no_data_beside_a_model(
    arguments: tuple[str, ...],
    parted: Path,
    sample_models: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(sample_models / "digits_cnn.onnx", "sample.onnx")
    given = [str(parted) if part == "MODEL" else part for part in arguments]
    part = tmp_path / "part1.json"
    said = refused(capsys, *given, "--report", part)
    assert said == f"error: {part}: would overwrite another file of this run"


def test_in_python_data_beside_a_model_are_inputs_as_well(parted: Path, tmp_path: Path) -> None:
    from edgecompress import quantize
    from edgecompress.core.options import QuantizeOptions

    with pytest.raises(InputOutputFailed, match=NEVER):
        quantize(parted, tmp_path / "part1.json", QuantizeOptions(), force=True)


def test_labels_beside_images_are_inputs_as_well(tmp_path: Path) -> None:
    images, labels = tmp_path / "t-images-idx3-ubyte", tmp_path / "t-labels-idx1-ubyte"
    for path in (images, labels):
        path.touch()
    with pytest.raises(InputOutputFailed, match=NEVER):
        check_output(labels, inputs=(str(images), None, "random:0"), force=True)
    check_output(tmp_path / "new.onnx", inputs=(str(images),), force=False)
    (tmp_path / "old.onnx").touch()
    check_output(tmp_path / "old.onnx", inputs=(str(images),), force=True)


def test_a_checkpoint_takes_the_place_of_nothing_else(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from edgecompress.training import checkpoint

    assert checkpoint.SCHEMA.encode() == STATE_SCHEMA
    plain, weights, state = (tmp_path / name for name in ("notes.txt", "w.pth", "s.ckpt"))
    plain.write_text("notes")
    torch.save({"weight": torch.zeros(3)}, weights)
    checkpoint.write_checkpoint(state, {"place": {"epoch": 1}})
    for path in (plain, weights):
        for force in (False, True):
            with pytest.raises(InputOutputFailed, match="is no checkpoint"):
                check_checkpoint(path, others=(), resume=not force, force=force)
    with pytest.raises(InputOutputFailed, match="the checkpoint exists") as caught:
        check_checkpoint(state, others=(), resume=False, force=False)
    assert "--resume goes on from it, --force overwrites it" in caught.value.hint
    check_checkpoint(state, others=(), resume=True, force=False)
    check_checkpoint(state, others=(), resume=False, force=True)
    check_checkpoint(tmp_path / "new.ckpt", others=(), resume=False, force=False)
    with pytest.raises(InputOutputFailed, match="another file of this run"):
        check_checkpoint(state, others=(state,), resume=True, force=True)


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        (("--resume",), 2, "--resume needs --checkpoint"),
        (("--fixed-ranks", "--target-params", "3x"), 2, "ranks are fixed"),
        (("--device", "tpu"), 2, "--device: unknown device 'tpu'"),
        (("--input-shape", "foo"), 2, "'foo' is not of the form NAME=1,3,224,224"),
        (("-o", "data.npz"), 8, "the output exists"),
        (("--checkpoint", "data.npz"), 8, "would overwrite another file of this run"),
    ],
)
def test_what_options_say_is_refused_before_pytorch_is_loaded(
    more: tuple[str, ...],
    code: int,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from edgecompress.pipeline import train

    def loaded() -> None:
        raise AssertionError("PyTorch was asked for")

    monkeypatch.setattr(train, "prepare_torch", loaded)
    monkeypatch.chdir(tmp_path)
    for name in ("data.npz", "other.npz"):
        np.savez(tmp_path / name, x=np.zeros((4, 3)), y=np.arange(4) % 2)
    base = ["train", "--arch", "mlp", "--data", "other.npz", "--quiet", "-o", "m.onnx"]
    if more[0] == "--checkpoint":
        base[4] = "data.npz"
    assert main([*base, *more]) == code
    assert words in capsys.readouterr().err


def test_options_of_training_load_without_pytorch() -> None:
    script = (
        "import sys; from edgecompress.cli import training_asked; "
        "from edgecompress.pipeline import train, outputs; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
