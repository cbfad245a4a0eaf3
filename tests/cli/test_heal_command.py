"""``--heal`` on a sample model: from the command line to the file, the plan and the report."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
import torch

import edgecompress as ec
from edgecompress.cli.asked import Asked, settle
from edgecompress.cli.described import settings_as_text
from edgecompress.cli.entry import main
from edgecompress.core.errors import ConfigurationInvalid, UsageError
from edgecompress.core.options import Budget, HealOptions, QuantizeOptions
from edgecompress.core.recipe import parse_recipe
from edgecompress.graph.model import load_model
from edgecompress.graph.session import open_session
from edgecompress.pipeline.heal import admit
from edgecompress.pipeline.plan_file import load_plan
from edgecompress.pipeline.request import CompressRequest


def run(*arguments: str | Path, code: int = 0) -> str:
    """What the program says on stderr."""
    told = io.StringIO()
    with contextlib.redirect_stderr(told), contextlib.redirect_stdout(io.StringIO()):
        found = main([*map(str, arguments), "--quiet"])
    assert found == code, told.getvalue()
    return told.getvalue()


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Small products take longer on several threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def healed(sample_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a run with its plan and report beside it."""
    folder = tmp_path_factory.mktemp("healed")
    model, output = sample_models / "digits_cnn.onnx", folder / "a.onnx"
    details = ("--heal-epochs", "3", "--heal-samples", "256", "--report", folder / "a.json")
    text = ("--report", folder / "a.txt")
    run("decompose", model, "-o", output, *_how(sample_models), "--heal", *details, *text)
    return folder


def _how(sample_models: Path) -> list[str]:
    data = sample_models / "digits_calibration.npz"
    return ["--data", str(data), "--calibration", "64", "--format", "spatial", "--rank", "24"]


def report(path: Path) -> Any:
    return json.loads(path.read_text())


def test_the_report_says_what_healing_did(healed: Path) -> None:
    told = report(healed / "a.json")
    healing = told["healing"]
    assert healing["measure"] == "kl"
    assert healing["after"] < healing["before"]
    assert (healing["samples"], healing["held_back"]) == (230, 26)
    assert healing["epochs"] == 4
    text = " ".join((healed / "a.txt").read_text().split())
    before, after = f"{healing['before']:.3g}", f"{healing['after']:.3g}"
    assert "divergence of the scores from the float model on 26 samples held back: " in text
    assert f"held back: {before} -> {after}, same largest score on" in text
    assert "4 passes over 230 samples without labels" in text
    assert "1 + 3 passes" in told["settings"]["heal"]
    assert told["versions"]["torch"] == version("torch")
    assert f"torch {version('torch')}" in text
    plan = load_plan(healed / "a.plan.json")
    assert plan.heal is not None
    assert plan.heal.options == HealOptions(epochs=3, samples=256)
    assert plan.heal.made_with.startswith("torch ")


def test_a_replay_heals_again_and_says_so_where_it_differs(
    healed: Path, sample_models: Path, tmp_path: Path
) -> None:
    model, data = sample_models / "digits_cnn.onnx", sample_models / "digits_calibration.npz"
    replay = ["decompose", model, "--data", data]
    run(*replay, "-o", tmp_path / "b.onnx", "--plan", healed / "a.plan.json",
        "--report", tmp_path / "b.json")  # fmt: skip
    assert (tmp_path / "b.onnx").read_bytes() == (healed / "a.onnx").read_bytes()
    assert not [w for w in report(tmp_path / "b.json")["warnings"] if "healing" in w]
    assert report(tmp_path / "b.plan.json") == report(healed / "a.plan.json")

    other = report(healed / "a.plan.json")
    other["heal"] |= {"weights_sha256": "0" * 64, "made_with": "torch 9, 3 threads, cray"}
    (tmp_path / "other.json").write_text(json.dumps(other))
    run(*replay, "-o", tmp_path / "c.onnx", "--plan", tmp_path / "other.json",
        "--report", tmp_path / "c.json")  # fmt: skip
    (warning,) = [w for w in report(tmp_path / "c.json")["warnings"] if "same bits" in w]
    assert "torch 9, 3 threads, cray then, torch " in warning

    other["heal"]["data_sha256"] = "0" * 64
    (tmp_path / "other.json").write_text(json.dumps(other))
    told = run(*replay, "-o", tmp_path / "d.onnx", "--plan", tmp_path / "other.json", code=7)
    assert "healed on other data" in told


def test_compress_heals_before_it_quantizes(sample_models: Path, tmp_path: Path) -> None:
    run("compress", sample_models / "digits_cnn.onnx", "-o", tmp_path / "a.onnx",
        *_how(sample_models), "--heal", "--heal-epochs", "1", "--heal-samples", "64",
        "--bits", "8", "--report", tmp_path / "a.json")  # fmt: skip
    told = report(tmp_path / "a.json")
    assert told["healing"]["samples"] == 58
    assert "decomposed+quantized" in {layer["action"] for layer in told["layers"]}
    feed = np.load(sample_models / "digits_test.npz")
    session = open_session(tmp_path / "a.onnx", optimize=True)
    assert session.run(None, {session.get_inputs()[0].name: feed["image"][:4]})[0].shape == (4, 10)


def test_healing_is_for_what_is_decomposed(sample_models: Path, tmp_path: Path) -> None:
    options = QuantizeOptions()
    with pytest.raises(UsageError, match="healing is for what was decomposed"):
        ec.quantize(
            sample_models / "digits_cnn.onnx",
            tmp_path / "o.onnx",
            options,
            heal=ec.HealOptions(),
            data="random:0",
        )
    request = CompressRequest(
        command="decompose",
        model=sample_models / "digits_cnn.onnx",
        output=tmp_path / "o.onnx",
        decompose=ec.DecomposeOptions(),
        quantize=None,
        heal=HealOptions(budget=Budget("latency", ratio=0.5)),
        data="random:0",
    )
    model = load_model(sample_models / "digits_cnn.onnx")
    with pytest.raises(UsageError, match="not to a latency"):
        admit(request, model, None)
    with pytest.raises(UsageError, match="healing needs data"):
        admit(replace(request, data=None), model, None)


ASKED = Asked(model="m.onnx", output="o.onnx", command="decompose", data="d.npz")


def asked(**values: Any) -> Asked:
    return Asked(
        **{**{n: getattr(ASKED, n) for n in ("model", "output", "command", "data")}, **values}
    )


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"heal_epochs": 3}, "--heal-epochs has no effect without --heal"),
        ({"heal": True, "data": None}, "--heal needs --data; labels are not used"),
        ({"heal": True, "heal_augment": "flip,spin"}, "'spin' is none of flip, crop, mix"),
        ({"heal": True, "heal_macs": "30%", "heal_params": "30%"}, "exclude each other"),
        ({"heal": True, "heal_macs": "little"}, "'little' is neither a share"),
        (
            {"heal": True, "command": "compress", "decompose": False},
            "--heal has no effect: decomposition is off",
        ),
    ],
)
def test_options_that_make_no_sense(values: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        settle(asked(**values))
    assert words in str(caught.value)


def test_options_over_those_of_a_recipe(tmp_path: Path) -> None:
    text = """
    seed = 3
    [decompose]
    rank_multiple = 8
    [heal]
    epochs = 7
    augment = ["crop", "flip"]
    target_macs = "40%"
    """
    recipe = parse_recipe(text)
    expected = HealOptions(
        epochs=7,
        augment=("crop", "flip"),
        budget=Budget("macs", ratio=0.4),
        rank_multiple=8,
        seed=3,
    )
    assert recipe.heal == expected
    (tmp_path / "r.toml").write_text(text)
    found = settle(asked(recipe=str(tmp_path / "r.toml"), heal_augment="mix", heal_params="20k"))
    assert found.heal == HealOptions(
        epochs=7,
        augment=("mix",),
        budget=Budget("params", limit=20_000.0),
        rank_multiple=8,
        seed=3,
    )
    told = settings_as_text(found, asked())["heal"]
    assert "mix, ranks to 20000 params, strength 0.03" in told
    assert parse_recipe("[heal]\nenabled = false").heal is None
    with pytest.raises(ConfigurationInvalid, match="one of target_params and target_macs"):
        parse_recipe('[heal]\ntarget_macs = "40%"\ntarget_params = "40%"')


def test_an_operator_that_cannot_be_trained_through_is_named_before_any_work(
    tmp_path: Path,
) -> None:
    proto = onnx.parser.parse_model(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[N,4] x) => (float[N,4] y, float[K] z) {
          y = MatMul (x, w)
          z = Unique (y)
        }
        """
    )
    weight = np.eye(4, dtype=np.float32)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    onnx.save(proto, tmp_path / "m.onnx")
    told = run("decompose", tmp_path / "m.onnx", "-o", tmp_path / "o.onnx", "--data", "random:0",
               "--rank", "1", "--heal", code=5)  # fmt: skip
    assert "Unique" in told
    assert not (tmp_path / "o.onnx").exists()


def test_without_torch_the_install_line_is_told(
    sample_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("edgecompress.training.heal")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    path = sample_models / "digits_cnn.onnx"
    settings = settle(asked(heal=True))
    request = CompressRequest(
        command="decompose",
        model=path,
        output=tmp_path / "o.onnx",
        decompose=settings.decompose,
        quantize=None,
        heal=settings.heal,
        data="random:0",
    )
    with pytest.raises(ConfigurationInvalid) as caught:
        admit(request, load_model(path), None)
    assert caught.value.hint == "pip install 'edgecompress[torch]'"
