"""PyTorch files: what each becomes, and what each refusal says."""

from __future__ import annotations

import os
import pickle
import sys
import zipfile
from hashlib import sha256
from pathlib import Path

import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch")

import onnxruntime as ort  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

import edgecompress  # noqa: E402
from edgecompress.core.errors import (  # noqa: E402
    ConfigurationInvalid,
    EdgeCompressError,
    InputOutputFailed,
    ModelInvalid,
    ResourceLimit,
    UnsafeInput,
    Unsupported,
    UsageError,
)
from edgecompress.training.read import torch_to_onnx  # noqa: E402

NETWORKS = '''
import torch
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    """Two 3x3 convolutions; the shortcut takes every second pixel and pads channels (He 2015)."""

    def __init__(self, before, after, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.pad = (after - before) // 2
        self.stride = stride

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.pad:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.pad, self.pad))
        return F.relu(x + y)


class ResNet20(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*(Block(16, 16, 1) for _ in range(3)))
        self.layer2 = nn.Sequential(Block(16, 32, 2), Block(32, 32, 1), Block(32, 32, 1))
        self.layer3 = nn.Sequential(Block(32, 64, 2), Block(64, 64, 1), Block(64, 64, 1))
        self.linear = nn.Linear(64, 10)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


def small():
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))


def not_a_network():
    return 3


def lost():
    return {}["setting"]


def asks(size):
    return nn.Linear(size, 3)


class OneRow(nn.Module):
    """Takes a batch of one only."""

    def forward(self, x):
        return x.reshape(1, 6) * 2


class Stuck(nn.Module):
    """The way through depends on the values: it runs, but cannot be exported."""

    def forward(self, x):
        return x * len([v for v in x.flatten().tolist() if v >= 0])
'''


@pytest.fixture
def networks(tmp_path, monkeypatch):
    """A folder with the user's module, which is the current one."""
    (tmp_path / "my_networks.py").write_text(NETWORKS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    yield tmp_path
    sys.modules.pop("my_networks", None)


def small_network(folder: Path):
    sys.path.insert(0, str(folder))
    import my_networks

    torch.manual_seed(0)
    return my_networks.small()


def run(content: bytes, x: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def message(error: type[EdgeCompressError], *args, **kwargs) -> str:
    with pytest.raises(error) as caught:
        torch_to_onnx(*args, **kwargs)
    return str(caught.value)


# ---- the same network in every form gives the same graph as torch computes


def test_state_dict_with_a_factory(networks) -> None:
    network = small_network(networks)
    path = networks / "weights.pth"
    torch.save({"state_dict": {f"module.{k}": v for k, v in network.state_dict().items()}}, path)
    content = torch_to_onnx(path, factory="my_networks:small", trust_input=True, input_shape=(1, 6))
    x = np.random.default_rng(0).normal(size=(7, 6)).astype(np.float32)
    expected = network(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(run(content, x), expected, atol=1e-5)


def test_safetensors_state_dict(networks) -> None:
    network = small_network(networks)
    path = networks / "weights.safetensors"
    save_file(network.state_dict(), path)
    content = torch_to_onnx(path, factory="my_networks:small", trust_input=True, input_shape=(1, 6))
    x = np.ones((2, 6), np.float32)
    expected = network(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(run(content, x), expected, atol=1e-5)


@pytest.mark.parametrize("form", ["module", "script", "program"])
def test_forms_that_need_trust(networks, form: str) -> None:
    network = small_network(networks)
    path = networks / f"{form}.pt"
    example = torch.zeros(2, 6)
    if form == "module":
        torch.save(network, path)
    elif form == "script":
        torch.jit.trace(network, example).save(path)
    else:
        batch = ({0: torch.export.Dim("batch")},)
        torch.export.save(torch.export.export(network, (example,), dynamic_shapes=batch), path)
    text = message(UnsafeInput, path, input_shape=(1, 6))
    assert "can run any code" in text
    assert "--trust-input" in text
    content = torch_to_onnx(path, trust_input=True, input_shape=(1, 6))
    x = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
    expected = network(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(run(content, x), expected, atol=1e-5)


def test_the_same_file_gives_the_same_bytes_without_paths(networks) -> None:
    path = networks / "weights.pth"
    torch.save(small_network(networks).state_dict(), path)
    options = {"factory": "my_networks:small", "trust_input": True, "input_shape": (1, 6)}
    first = torch_to_onnx(path, **options)
    assert first == torch_to_onnx(path, **options)
    assert str(networks).encode() not in first
    onnx.checker.check_model(onnx.load_from_string(first))


def test_a_network_for_one_row_keeps_its_batch(networks) -> None:
    small_network(networks)
    import my_networks

    path = networks / "module.pt"
    torch.save(my_networks.OneRow(), path)
    content = torch_to_onnx(path, trust_input=True, input_shape=(1, 6))
    assert run(content, np.ones((1, 6), np.float32)).tolist() == [[2.0] * 6]
    sizes = onnx.load_from_string(content).graph.input[0].type.tensor_type.shape.dim
    assert [size.dim_value for size in sizes] == [1, 6]


def test_old_form_of_a_state_dict(networks) -> None:
    network = small_network(networks)
    path = networks / "weights.pth"
    torch.save(network.state_dict(), path, _use_new_zipfile_serialization=False)
    options = {"factory": "my_networks:small", "trust_input": True, "input_shape": (1, 6)}
    x = np.ones((1, 6), np.float32)
    expected = network(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(run(torch_to_onnx(path, **options), x), expected, atol=1e-5)


# ---- refusals


def test_state_dict_without_a_factory(networks) -> None:
    path = networks / "weights.pth"
    torch.save(small_network(networks).state_dict(), path)
    text = message(Unsupported, path)
    assert "weights but no network" in text
    assert "--model module:function" in text


def test_factory_without_trust(networks) -> None:
    path = networks / "weights.pth"
    torch.save(small_network(networks).state_dict(), path)
    text = message(UnsafeInput, path, factory="my_networks:small")
    assert "my_networks:small imports and runs Python code" in text


class Evil:
    def __reduce__(self):
        return os.system, ("touch PWNED",)


@pytest.mark.parametrize("form", ["zip", "old", "raw"])
@pytest.mark.parametrize("force", [False, True])
def test_a_pickle_that_runs_a_command_is_not_run(
    networks, monkeypatch, form: str, force: bool
) -> None:
    if force:
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    path = networks / "evil.pth"
    if form == "raw":
        path.write_bytes(pickle.dumps(Evil(), protocol=4))
    else:
        torch.save({"w": Evil()}, path, _use_new_zipfile_serialization=form == "zip")
    text = message(UnsafeInput, path)
    assert "system" in text
    assert not (networks / "PWNED").exists()


def test_pickle_of_protocol_0_is_no_pytorch_file(networks) -> None:
    path = networks / "evil.pth"
    path.write_bytes(pickle.dumps(Evil(), protocol=0))
    assert "not a PyTorch file" in message(ModelInvalid, path)
    assert not (networks / "PWNED").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "not a PyTorch file"), (b"hello", "not a PyTorch file"), (b"PK\3\4xxx", "damaged")],
)
def test_other_content(networks, content: bytes, words: str) -> None:
    path = networks / "model.pth"
    path.write_bytes(content)
    assert words in message(ModelInvalid, path)


def test_truncated_archive(networks) -> None:
    path = networks / "weights.pth"
    torch.save(small_network(networks).state_dict(), path)
    path.write_bytes(path.read_bytes()[:700])
    assert "damaged archive" in message(ModelInvalid, path)


def test_archive_that_declares_more_than_it_holds(networks) -> None:
    path = networks / "bomb.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", pickle.dumps({}, protocol=2))
        archive.writestr("a/data/0", bytes(50 << 20))
    assert path.stat().st_size < 1 << 20
    assert "declares" in message(ResourceLimit, path)


def test_archive_of_something_else(networks) -> None:
    path = networks / "model.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert "not one that PyTorch wrote" in message(ModelInvalid, path)


def test_damaged_safetensors(networks) -> None:
    path = networks / "weights.safetensors"
    options = {"factory": "my_networks:small", "trust_input": True, "input_shape": (1, 6)}
    for content in (b"", b"hello", (1 << 40).to_bytes(8, "little") + b"{}"):
        path.write_bytes(content)
        assert "cannot be read" in message(ModelInvalid, path, **options)


def test_missing_file(networks) -> None:
    text = message(InputOutputFailed, networks / "none.pth")
    assert "No such file" in text


def test_state_dict_that_does_not_fit(networks) -> None:
    path = networks / "weights.pth"
    state = small_network(networks).state_dict()
    options = {"factory": "my_networks:small", "trust_input": True, "input_shape": (1, 6)}
    renamed = {("extra.weight" if k == "2.bias" else k): v for k, v in state.items()}
    torch.save(renamed, path)
    text = message(ModelInvalid, path, **options)
    assert "1 missing (2.bias) and 1 unexpected (extra.weight)" in text
    torch.save({**state, "0.bias": torch.zeros(4)}, path)
    text = message(ModelInvalid, path, **options)
    assert "size mismatch for 0.bias" in text


def test_state_dict_of_other_things(networks) -> None:
    path = networks / "weights.pth"
    torch.save({"epoch": 3, "accuracy": 0.9}, path)
    options = {"factory": "my_networks:small", "trust_input": True, "input_shape": (1, 6)}
    assert "epoch, accuracy are not tensors" in message(ModelInvalid, path, **options)


@pytest.mark.parametrize(
    ("factory", "words"),
    [
        ("my_networks", "not of the form module:function"),
        ("no_such_module:small", "cannot import no_such_module:small"),
        ("my_networks:none", "cannot import my_networks:none"),
        ("my_networks:not_a_network", "gives int, not a torch.nn.Module"),
        ("my_networks:lost", "my_networks:lost() raises KeyError: 'setting'"),
        ("my_networks:asks", "my_networks:asks() raises TypeError"),
        ("no_python:small", "importing no_python raises SyntaxError"),
    ],
)
def test_wrong_factory(networks, factory: str, words: str) -> None:
    path = networks / "weights.pth"
    (networks / "no_python.py").write_text("def small(:")
    torch.save(small_network(networks).state_dict(), path)
    text = message(UsageError, path, factory=factory, trust_input=True, input_shape=(1, 6))
    assert words in text


def test_an_interrupt_in_a_factory_is_one(networks) -> None:
    """All that a user's code raises is told as its error, but not what stops the program."""
    (networks / "stopped.py").write_text(
        "def by_hand():\n    raise KeyboardInterrupt\ndef itself():\n    raise SystemExit(4)\n"
        "class Own(Exception):\n    pass\ndef own():\n    raise Own('no network today')\n"
    )
    path = networks / "weights.pth"
    torch.save(small_network(networks).state_dict(), path)
    options = {"trust_input": True, "input_shape": (1, 6)}
    with pytest.raises(KeyboardInterrupt):
        torch_to_onnx(path, factory="stopped:by_hand", **options)
    with pytest.raises(SystemExit):
        torch_to_onnx(path, factory="stopped:itself", **options)
    text = message(UsageError, path, factory="stopped:own", **options)
    assert "stopped:own() raises Own: no network today" in text


def test_reports_on_a_file_name_that_file(networks) -> None:
    """estimate-latency, inspect and evaluate take PyTorch files like ONNX ones."""
    path = networks / "weights.pth"
    network = small_network(networks)
    torch.save(network.state_dict(), path)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((40, 6)).astype(np.float32)
    labels = network(torch.tensor(x)).argmax(1).numpy()
    np.savez(networks / "data.npz", input=x, y=labels)
    options = {
        "torch_factory": "my_networks:small",
        "trust_input": True,
        "input_shapes": {"input": (1, 6)},
    }
    (latency,) = edgecompress.estimate_latency(path, ["roofline-generic"], **options)
    inspection = edgecompress.inspect(path, **options)
    evaluation = edgecompress.evaluate(path, str(networks / "data.npz"), reference=path, **options)
    assert latency.macs == inspection.macs == 6 * 5 + 5 * 3
    assert evaluation.accuracy == 1.0
    facts = [latency.model, inspection.model, evaluation.model, evaluation.reference]
    assert {fact.path for fact in facts if fact} == {str(path)}
    assert {fact.sha256 for fact in facts if fact} == {sha256(path.read_bytes()).hexdigest()}
    with pytest.raises(UnsafeInput):
        edgecompress.inspect(path, torch_factory="my_networks:small")


def test_an_error_about_an_export_names_the_users_file(networks) -> None:
    path = networks / "weights.pth"
    torch.save(small_network(networks).state_dict(), path)
    with pytest.raises(UsageError, match="there is no input 'x'") as failure:
        edgecompress.inspect(
            path,
            torch_factory="my_networks:small",
            trust_input=True,
            input_shapes={"x": (1, 6)},
        )
    assert failure.value.where == str(path)


def test_input_shape_is_needed_and_must_fit(networks) -> None:
    path = networks / "weights.pth"
    torch.save(small_network(networks).state_dict(), path)
    options = {"factory": "my_networks:small", "trust_input": True}
    assert "--input-shape input=1,3,32,32" in message(UsageError, path, **options)
    text = message(Unsupported, path, input_shape=(1, 7), **options)
    assert "does not run on an input of shape (1, 7)" in text


def test_network_that_cannot_be_exported(networks) -> None:
    small_network(networks)
    import my_networks

    path = networks / "stuck.pt"
    torch.save(my_networks.Stuck(), path)
    text = message(Unsupported, path, trust_input=True, input_shape=(1, 6))
    assert "cannot be exported to ONNX" in text


def test_missing_torch_names_the_install_line(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "edgecompress.training.read")
    with pytest.raises(ConfigurationInvalid, match=r"pip install 'edgecompress\[torch\]'"):
        import edgecompress.training.read  # noqa: F401


# ---- a real network in three forms

DATA = os.environ.get("EDGECOMPRESS_DATA")


@pytest.mark.slow
@pytest.mark.skipif(DATA is None, reason="EDGECOMPRESS_DATA is not set")
@pytest.mark.parametrize("name", ["state_dict.pth", "pt2", "torchscript.pt"])
def test_resnet20_scores_as_its_onnx_export(networks, name: str) -> None:
    """915 of 1,000 test images, as measured for the ONNX export of the same weights."""
    path = Path(str(DATA)) / "models" / f"resnet20_cifar10.{name}"
    factory = "my_networks:ResNet20" if name.startswith("state") else None
    content = torch_to_onnx(path, factory=factory, trust_input=True, input_shape=(1, 3, 32, 32))
    data = np.load(Path(str(DATA)) / "datasets" / "cifar10_test1k.npz")
    mean = np.array([0.485, 0.456, 0.406], np.float32)
    deviation = np.array([0.229, 0.224, 0.225], np.float32)
    x = ((data["x"] / np.float32(255) - mean) / deviation).transpose(0, 3, 1, 2)
    hits = [
        (run(content, x[start : start + 250]).argmax(1) == data["y"][start : start + 250]).sum()
        for start in range(0, 1000, 250)
    ]
    assert sum(hits) == 915
