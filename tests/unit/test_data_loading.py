"""The data loader: every form gives the same samples, and every misfit says what is off."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from PIL import Image
from safetensors.numpy import save_file

from edgecompress.core.errors import DataInvalid, InputOutputFailed, Unsupported, UsageError
from edgecompress.core.preprocess import read_preprocess
from edgecompress.graph.model import Model, load_model
from edgecompress.graph.session import open_session, run_feeds
from edgecompress.pipeline.data import load_samples

ELEMENT = {"float": "float", "int64": "int64", "uint8": "uint8", "float16": "float16"}


@pytest.fixture
def model(tmp_path):
    """Makes a model that passes its inputs on: model("float[N,3,8,8] x", ...)."""

    def make(*inputs: str) -> Model:
        names = [item.split()[-1] for item in inputs]
        outputs = [
            item.replace(f" {name}", f" {name}_out")
            for item, name in zip(inputs, names, strict=True)
        ]
        body = "\n".join(f"{name}_out = Identity({name})" for name in names)
        text = (
            '<ir_version: 8, opset_import: ["" : 17]>\n'
            f"g ({', '.join(inputs)}) => ({', '.join(outputs)}) {{\n{body}\n}}"
        )
        path = tmp_path / "model.onnx"
        onnx.save(onnx.parser.parse_model(text), path)
        return load_model(path, normalize=False)

    return make


@pytest.fixture
def pixels() -> np.ndarray:
    """100 pictures of 8x8, channels last."""
    return np.random.default_rng(0).integers(0, 256, (100, 8, 8, 3), dtype=np.uint8)


LABELS = np.arange(100) % 10


def joined(samples, name: str = "x") -> np.ndarray:
    return np.concatenate([feed[name] for feed in samples.feeds])


def idx(values: np.ndarray) -> bytes:
    """The bytes of an IDX file of unsigned bytes."""
    sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
    return bytes([0, 0, 8, values.ndim]) + sizes + values.astype(np.uint8).tobytes()


# ---- forms


@pytest.mark.parametrize("form", ["npz", "npz-compressed", "npy", "npy-fortran", "safetensors"])
def test_array_files(tmp_path, model, pixels, form: str) -> None:
    stored = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
    kind, _, variant = form.partition("-")
    path = tmp_path / f"data.{kind}"
    match kind:
        case "npz":
            save = np.savez_compressed if variant else np.savez
            save(path, x=stored, y=LABELS)
        case "npy":
            np.save(path, np.asfortranarray(stored) if variant else stored)
        case _:
            save_file({"x": stored, "labels": LABELS}, path)
    samples = load_samples(
        str(path), model("float[N,3,8,8] x"), preprocess=read_preprocess("scale=1/255")
    )
    assert [len(feed["x"]) for feed in samples.feeds] == [64, 36]
    assert samples.feeds[0]["x"].dtype == np.float32
    np.testing.assert_allclose(joined(samples), stored / 255, rtol=1e-6)
    if kind == "npy":
        assert samples.labels is None
    else:
        np.testing.assert_array_equal(samples.labels, LABELS)
    assert samples.count == 100
    assert samples.source == path.name
    assert samples.warnings == ()


@pytest.mark.parametrize("zipped", [False, True])
def test_idx_with_the_labels_beside(tmp_path, model, pixels, zipped: bool) -> None:
    grey, suffix = pixels[..., 0], ".gz" if zipped else ""
    pack = gzip.compress if zipped else bytes
    path = tmp_path / f"t10k-images-idx3-ubyte{suffix}"
    path.write_bytes(pack(idx(grey)))
    (tmp_path / f"t10k-labels-idx1-ubyte{suffix}").write_bytes(pack(idx(LABELS)))
    samples = load_samples(str(path), model("float[N,1,8,8] x"))
    np.testing.assert_array_equal(joined(samples), grey[:, None])
    np.testing.assert_array_equal(samples.labels, LABELS)
    assert "labels from t10k-labels-idx1-ubyte" in samples.source
    assert any("axis of size 1" in warning for warning in samples.warnings)
    assert any("values reach 255" in warning for warning in samples.warnings)


def test_folder_of_class_folders(tmp_path, model, pixels) -> None:
    folder = tmp_path / "pictures"
    for label in (2, 10):
        (folder / str(label)).mkdir(parents=True)
        for place in range(3):
            Image.fromarray(pixels[label + place]).save(folder / str(label) / f"{place}.png")
    samples = load_samples(str(folder), model("float[N,3,8,8] x"))
    expected = np.concatenate([pixels[2:5], pixels[10:13]]).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(joined(samples), expected)
    np.testing.assert_array_equal(samples.labels, [2, 2, 2, 10, 10, 10])
    last = load_samples(str(folder), model("float[N,8,8,3] x"))
    np.testing.assert_array_equal(joined(last), expected.transpose(0, 2, 3, 1))


def test_named_class_folders_count_from_0(tmp_path, model, pixels) -> None:
    for name in ("dog", "cat"):
        (tmp_path / "set" / name).mkdir(parents=True)
        Image.fromarray(pixels[0]).save(tmp_path / "set" / name / "a.jpg")
    samples = load_samples(str(tmp_path / "set"), model("float[N,3,8,8] x"))
    np.testing.assert_array_equal(samples.labels, [0, 1])  # cat, dog


def test_flat_folder_is_resized_and_made_grey(tmp_path, model) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.new("RGBA", (20, 10), (200, 200, 200, 10)).save(folder / "a.png")
    Image.fromarray(np.full((5, 5), 65535, np.uint16)).save(folder / "b.png")
    Image.new("CMYK", (6, 6)).save(folder / "c.jpg")
    (folder / "notes.txt").write_text("hello")
    samples = load_samples(str(folder), model("float[N,1,8,8] x"))
    values = joined(samples)
    assert values.shape == (3, 1, 8, 8)
    np.testing.assert_allclose(values[0], 200, atol=1)
    np.testing.assert_array_equal(values[1], 255)
    np.testing.assert_allclose(values[2], 255, atol=2)  # no ink is white
    assert samples.labels is None
    assert any(warning.startswith("1 entries") for warning in samples.warnings)


def test_exif_rotation_is_applied(tmp_path, model) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    values = np.zeros((8, 8), np.uint8)
    values[0] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # turned by half
    Image.fromarray(values).save(folder / "a.png", exif=exif)
    loaded = joined(load_samples(str(folder), model("float[N,1,8,8] x")))
    np.testing.assert_array_equal(loaded[0, 0], values[::-1])


def test_random_is_loud_and_reproducible(model) -> None:
    network = model("float[N,3,8,8] x", "int64[N,5] ids")
    first, again = (load_samples("random:7", network, limit=100) for _ in range(2))
    other = load_samples("random:8", network, limit=100)
    assert "RANDOM" in first.source
    assert "seed 7" in first.source
    assert first.count == 100
    assert first.labels is None
    np.testing.assert_array_equal(joined(first), joined(again))
    assert not np.array_equal(joined(first), joined(other))
    assert first.sha256 != other.sha256
    assert set(np.unique(joined(first, "ids"))) == set(range(10))
    assert abs(float(joined(first).std()) - 1) < 0.05


def test_random_for_fixed_batches_scalars_and_open_sizes(model) -> None:
    network = model("float[2,3] x", "int64 step", "float[1,N] y")
    samples = load_samples("random:0", network, limit=6)
    assert len(samples.feeds) == 3
    assert samples.count == 6
    feed = samples.feeds[0]
    assert (feed["x"].shape, feed["step"].shape, feed["y"].shape) == ((2, 3), (), (1, 64))
    assert isinstance(feed["step"], np.ndarray)
    assert "input 'y': the open size of axis 1 was taken as 64" in samples.warnings


# ---- batches, subsets


def test_fixed_batch_drops_the_rest_and_says_so(tmp_path, model) -> None:
    np.savez(tmp_path / "d.npz", x=np.arange(20.0).reshape(10, 2), y=np.arange(10))
    samples = load_samples(str(tmp_path / "d.npz"), model("float[4,2] x"))
    assert [feed["x"].shape for feed in samples.feeds] == [(4, 2), (4, 2)]
    assert samples.count == 8
    np.testing.assert_array_equal(samples.labels, np.arange(8))
    assert "the last 2 samples do not fill a batch and were left out" in samples.warnings


def test_limit_is_a_seeded_subset_in_order(tmp_path, model) -> None:
    values = np.arange(1000.0)[:, None]
    np.savez(tmp_path / "d.npz", x=values, y=np.arange(1000) % 7)
    network, spec = model("float[N,1] x"), str(tmp_path / "d.npz")
    draws = [load_samples(spec, network, limit=100, seed=seed) for seed in (0, 0, 1)]
    rows = [joined(draw)[:, 0] for draw in draws]
    np.testing.assert_array_equal(rows[0], rows[1])
    assert not np.array_equal(rows[0], rows[2])
    assert len(set(rows[0])) == 100
    assert list(rows[0]) == sorted(rows[0])
    np.testing.assert_array_equal(draws[0].labels, rows[0].astype(int) % 7)
    assert draws[0].source == "d.npz (100 of 1000 samples, seed 0)"
    assert draws[0].sha256 == draws[1].sha256 != draws[2].sha256


def test_limit_above_the_number_takes_all(tmp_path, model) -> None:
    np.save(tmp_path / "d.npy", np.arange(6.0).reshape(3, 2))
    samples = load_samples(str(tmp_path / "d.npy"), model("float[N,2] x"), limit=10)
    assert samples.count == 3
    with pytest.raises(UsageError, match="0 samples are none"):
        load_samples(str(tmp_path / "d.npy"), model("float[N,2] x"), limit=0)


def test_hash_is_that_of_the_samples_not_of_the_file(tmp_path, model) -> None:
    x = np.arange(6.0).reshape(3, 2)
    np.savez(tmp_path / "a.npz", x=x)
    np.savez_compressed(tmp_path / "b.npz", x=x)
    network = model("float[N,2] x")
    a, b = (load_samples(str(tmp_path / f"{n}.npz"), network).sha256 for n in "ab")
    assert a == b


# ---- several inputs


def test_several_inputs_by_name(tmp_path, model) -> None:
    np.savez(tmp_path / "d.npz", a=np.zeros((5, 2)), b=np.ones((5, 3), np.int16), extra=np.ones(3))
    network = model("float[N,2] a", "int64[N,3] b")
    samples = load_samples(str(tmp_path / "d.npz"), network)
    assert samples.feeds[0]["b"].dtype == np.int64
    assert samples.warnings == ("arrays not used: extra", *samples.warnings[1:])


def test_whole_inputs_have_one_axis_more(tmp_path, model) -> None:
    rng = np.random.default_rng(0)
    state = rng.normal(size=(5, 2, 1, 4)).astype(np.float32)
    x = rng.normal(size=(5, 1, 8)).astype(np.float32)
    np.savez(tmp_path / "d.npz", x=x, state=state, step=np.arange(5))
    network = model("float[N,8] x", "float[2,N,4] state", "int64 step")
    samples = load_samples(str(tmp_path / "d.npz"), network)
    assert len(samples.feeds) == samples.count == 5
    np.testing.assert_array_equal(samples.feeds[3]["state"], state[3])
    np.testing.assert_array_equal(samples.feeds[3]["x"], x[3])
    assert samples.feeds[3]["step"] == 3
    assert samples.feeds[3]["step"].shape == ()


def test_several_inputs_need_an_array_each(tmp_path, model) -> None:
    network = model("float[N,2] a", "float[N,3] b")
    np.savez(tmp_path / "d.npz", a=np.zeros((5, 2)), c=np.zeros((5, 3)))
    with pytest.raises(
        DataInvalid, match="no array for the model's input 'b'; the file has 'a', 'c'"
    ):
        load_samples(str(tmp_path / "d.npz"), network)
    np.save(tmp_path / "d.npy", np.zeros((5, 2)))
    with pytest.raises(DataInvalid, match="one array cannot feed the inputs 'a', 'b'"):
        load_samples(str(tmp_path / "d.npy"), network)
    np.savez(tmp_path / "d.npz", a=np.zeros((5, 2)), b=np.zeros((4, 3)))
    with pytest.raises(DataInvalid, match="differ in their number of samples: 'a' 5, 'b' 4"):
        load_samples(str(tmp_path / "d.npz"), network)
    with pytest.raises(DataInvalid, match="one input; this one has a, b"):
        load_samples(str(tmp_path / "d.npz"), network, preprocess=read_preprocess("scale=2"))


# ---- shapes that do not fit: never guessed


def test_wrong_order_of_axes_is_refused_with_the_cure(tmp_path, model, pixels) -> None:
    np.savez(tmp_path / "d.npz", x=pixels)
    network = model("float[N,3,8,8] x")
    with pytest.raises(DataInvalid) as caught:
        load_samples(str(tmp_path / "d.npz"), network)
    text = str(caught.value)
    assert "data is (100, 8, 8, 3), the model wants (n, 3, 8, 8)" in text
    assert "--preprocess layout=nhwc)" in text  # no ">", which a shell would take for itself
    cured = load_samples(
        str(tmp_path / "d.npz"), network, preprocess=read_preprocess("layout=nhwc")
    )
    np.testing.assert_array_equal(joined(cured), pixels.transpose(0, 3, 1, 2))


def test_flat_samples_are_refused_with_the_cure(tmp_path, model) -> None:
    np.save(tmp_path / "d.npy", np.zeros((5, 64), np.float32))
    network = model("float[N,1,8,8] x")
    with pytest.raises(DataInvalid, match="--preprocess reshape=1:8:8"):
        load_samples(str(tmp_path / "d.npy"), network)
    cured = load_samples(
        str(tmp_path / "d.npy"), network, preprocess=read_preprocess("reshape=1:8:8")
    )
    assert joined(cured).shape == (5, 1, 8, 8)


def test_wrong_size_is_refused(tmp_path, model) -> None:
    np.save(tmp_path / "d.npy", np.zeros((5, 3, 9, 8), np.float32))
    with pytest.raises(
        DataInvalid, match=r"data is \(5, 3, 9, 8\), the model wants \(n, 3, 8, 8\)"
    ):
        load_samples(str(tmp_path / "d.npy"), model("float[N,3,8,8] x"))


def test_too_few_for_the_batch(tmp_path, model) -> None:
    np.save(tmp_path / "d.npy", np.zeros((3, 2), np.float32))
    with pytest.raises(DataInvalid, match="3 samples are fewer than the model's batch of 4"):
        load_samples(str(tmp_path / "d.npy"), model("float[4,2] x"))


def test_open_sizes_take_what_the_data_have(tmp_path, model) -> None:
    np.save(tmp_path / "d.npy", np.zeros((3, 3, 17, 19), np.float32))
    samples = load_samples(str(tmp_path / "d.npy"), model("float[N,3,H,W] x"))
    assert joined(samples).shape == (3, 3, 17, 19)


# ---- values


def test_preprocess_by_hand(tmp_path, model, pixels) -> None:
    np.savez(tmp_path / "d.npz", images=pixels)
    text = "scale=1/255,mean=0.485:0.456:0.406,std=0.229:0.224:0.225,layout=nhwc"
    samples = load_samples(
        str(tmp_path / "d.npz"), model("float[N,3,8,8] x"), preprocess=read_preprocess(text)
    )
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    expected = ((pixels / 255 - mean) / std).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(joined(samples), expected, rtol=1e-5, atol=1e-6)


def test_channels_must_be_found(tmp_path, model) -> None:
    np.save(tmp_path / "d.npy", np.zeros((5, 3, 8, 3), np.float32))
    network = model("float[N,3,8,3] x")
    with pytest.raises(DataInvalid, match="more than one axis"):
        load_samples(str(tmp_path / "d.npy"), network, preprocess=read_preprocess("mean=1:2:3"))
    with pytest.raises(DataInvalid, match="no channel axis"):
        load_samples(str(tmp_path / "d.npy"), network, preprocess=read_preprocess("mean=1:2:3:4"))
    chosen = read_preprocess("mean=1:2:3,layout=nhwc->nhwc")
    values = joined(load_samples(str(tmp_path / "d.npy"), network, preprocess=chosen))
    np.testing.assert_array_equal(values[0, 0, 0], [-1, -2, -3])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity(tmp_path, model, bad: float) -> None:
    values = np.zeros((5, 2), np.float32)
    values[3, 1] = bad
    np.save(tmp_path / "d.npy", values)
    with pytest.raises(DataInvalid, match="1 values that are NaN or infinite"):
        load_samples(str(tmp_path / "d.npy"), model("float[N,2] x"))


def test_overflow_in_the_models_type(tmp_path, model) -> None:
    np.save(tmp_path / "d.npy", np.full((5, 2), 1e6))
    with pytest.raises(DataInvalid, match="as float16 the data have 10 values"):
        load_samples(str(tmp_path / "d.npy"), model("float16[N,2] x"))


def test_integer_inputs(tmp_path, model) -> None:
    np.save(tmp_path / "d.npy", np.array([[3, 300]]))
    with pytest.raises(
        DataInvalid, match="values from 3 to 300 do not fit input 'x' of type uint8"
    ):
        load_samples(str(tmp_path / "d.npy"), model("uint8[N,2] x"))
    np.save(tmp_path / "f.npy", np.array([[3.0, 4.0]]))
    with pytest.raises(DataInvalid, match="data are float64, input 'x' takes int64"):
        load_samples(str(tmp_path / "f.npy"), model("int64[N,2] x"))
    with pytest.raises(DataInvalid, match="scale, mean and std need a float input"):
        load_samples(
            str(tmp_path / "d.npy"), model("int64[N,2] x"), preprocess=read_preprocess("scale=2")
        )


def test_text_inputs_are_not_served(tmp_path, model) -> None:
    with pytest.raises(Unsupported, match="no random values for input 'x'"):
        load_samples("random:0", model("string[N,2] x"))


def test_constant_samples_are_remarked(tmp_path, model) -> None:
    np.save(tmp_path / "d.npy", np.zeros((5, 2)))
    samples = load_samples(str(tmp_path / "d.npy"), model("float[N,2] x"))
    assert samples.warnings == ("input 'x': all values are 0.0",)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (np.array([0.5, 1, 2]), "not class numbers"),
        (np.array([-1, 1, 2]), "from -1 to 2, not class numbers"),
        (np.eye(3, dtype=int), "not one class number for each of 3 samples"),
    ],
)
def test_labels_that_are_none(tmp_path, model, labels: np.ndarray, words: str) -> None:
    np.savez(tmp_path / "d.npz", x=np.zeros((3, 2)), y=labels)
    with pytest.raises(DataInvalid, match=words):
        load_samples(str(tmp_path / "d.npz"), model("float[N,2] x"))


# ---- other refusals


def test_files_that_cannot_be_opened(tmp_path, model) -> None:
    network = model("float[N,2] x")
    with pytest.raises(InputOutputFailed, match="No such file"):
        load_samples(str(tmp_path / "none.npz"), network)
    with pytest.raises(InputOutputFailed, match="not a regular file"):
        load_samples("/dev/zero", network)


def test_forms_that_are_not_known(tmp_path, model) -> None:
    (tmp_path / "d.csv").write_text("1,2\n")
    with pytest.raises(DataInvalid, match=r"not data of a known form \(npz, npy, safetensors, IDX"):
        load_samples(str(tmp_path / "d.csv"), model("float[N,2] x"))


@pytest.mark.parametrize("seed", ["", "x", "-1", "1.5"])
def test_seed_of_random(model, seed: str) -> None:
    with pytest.raises(UsageError, match="the seed is a whole number, as in random:0"):
        load_samples(f"random:{seed}", model("float[N,2] x"))


def test_given_shape_fixes_open_sizes(tmp_path, model) -> None:
    network = load_model(
        Path(model("float[N,3,H,W] x").file.path), normalize=False, input_shapes={"x": (1, 3, 5, 6)}
    )
    assert load_samples("random:0", network).feeds[0]["x"].shape == (64, 3, 5, 6)
    for size in (4, 7):
        folder = tmp_path / "pictures"
        folder.mkdir(exist_ok=True)
        Image.new("RGB", (size, size)).save(folder / f"{size}.png")
    assert joined(load_samples(str(folder), network)).shape == (2, 3, 5, 6)
    with pytest.raises(DataInvalid, match=r"the pictures differ in size .*--input-shape"):
        load_samples(str(folder), model("float[N,3,H,W] x"))


def test_random_for_a_model_without_inputs(tmp_path) -> None:
    """One empty feed: such a model can still be run."""
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g () => (float[1] y) <float[1] c = {1.0}> { y = Identity(c) }"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "m.onnx")
    network = load_model(tmp_path / "m.onnx", normalize=False)
    samples = load_samples("random:0", network)
    assert samples.feeds == ({},)
    assert samples.count == 1
    with pytest.raises(UsageError, match="the model has no inputs"):
        load_samples("d.npz", network)


def tables(tmp_path: Path, body: str) -> Model:
    """A model whose input of three whole numbers indexes tables of 2, 7 and 40 rows."""
    text = (
        '<ir_version: 8, opset_import: ["" : 17]>\n'
        "g (int64[N,3] x) => (float[N] y)\n"
        "<int64 two = {2}, int64 seven = {7}, int64 one = {1}, int64[1] axis = {1},\n"
        " int64 zero = {0}, int64 three = {3}>\n"
        f"{{\n{body}\n}}"
    )
    proto = onnx.parser.parse_model(text)
    for rows in (2, 7, 40):
        values = np.arange(rows, dtype=np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(values, f"table{rows}"))
    path = tmp_path / "tables.onnx"
    onnx.save(proto, path)
    return load_model(path, normalize=False)


def rounded_down(index: str) -> str:
    """b: the index over two, as the exporter of PyTorch divides and rounds down."""
    return (
        f"n = Less({index}, zero)\nm = Mod({index}, two)\no = Cast<to = 9>(m)\n"
        f"p = And(n, o)\nq = Cast<to = 7>(p)\nd = Div({index}, two)\nb = Sub(d, q)\n"
    )


@pytest.mark.parametrize(
    ("body", "below"),
    [
        ("a = Gather<axis = 1>(x, one)\ny = Gather(table7, a)", 7),
        ("a, b, c = Split<axis = 1>(x)\nd = Squeeze(b, axis)\ny = Gather(table7, d)", 7),
        ("a = Gather<axis = 1>(x, one)\nb = Div(a, two)\ny = Gather(table2, b)", 4),
        ("a = Gather<axis = 1>(x, one)\nb = Mod(a, seven)\ny = Gather(table7, b)", 10),
        ("a = Gather<axis = 1>(x, one)\ny = Gather(table40, a)", 10),
        (
            "a = Gather<axis = 1>(x, one)\nb = Cast<to = 6>(a)\nc = Gather(table40, a)\n"
            "d = Gather(table2, b)\ny = Add(c, d)",
            2,
        ),
        ("a = Gather<axis = 1>(x, one)\n" + rounded_down("a") + "y = Gather(table2, b)", 4),
        (
            "a = Gather<axis = 1>(x, one)\nt = GreaterOrEqual(a, three)\ns = Add(a, seven)\n"
            "c = Where(t, s, a)\n" + rounded_down("c") + "y = Gather(table2, b)",
            3,
        ),
        (
            "a = Gather<axis = 1>(x, one)\nt = Less(a, three)\n"
            "b = Where(t, a, zero)\ny = Gather(table40, b)",
            3,
        ),
    ],
    ids=[
        *("picked", "split", "divided", "remainder", "large", "two tables"),
        *("rounded down", "spare rows", "replaced"),
    ],
)
def test_random_indices_are_in_their_tables(tmp_path: Path, body: str, below: int) -> None:
    """Truth: the rows of the tables by hand, and onnxruntime, which refuses other indices."""
    network = tables(tmp_path, body)
    samples = load_samples("random:0", network, limit=500)
    values = joined(samples)
    assert values.min() == 0
    assert values.max() == below - 1
    session = open_session(Path(network.file.path), optimize=False)
    assert len(run_feeds(session, samples.feeds)) == len(samples.feeds)
