"""Samples to learn from: shapes and types follow from what is stored, values from NumPy."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgecompress.core.errors import DataInvalid, UsageError
from edgecompress.core.preprocess import read_preprocess
from edgecompress.pipeline.training_data import (
    check_labels,
    class_warnings,
    load_test_samples,
    load_training_samples,
)

ANY = {"input": None}


def idx(values: np.ndarray) -> bytes:
    """An IDX file of bytes, written by hand after its description."""
    sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
    return bytes([0, 0, 8, values.ndim]) + sizes + values.astype(np.uint8).tobytes()


def test_zipped_idx_with_labels_beside(tmp_path: Path) -> None:
    pictures = np.arange(3 * 4 * 4).reshape(3, 4, 4)
    images = tmp_path / "train-images-idx3-ubyte.gz"
    images.write_bytes(gzip.compress(idx(pictures)))
    labels = tmp_path / "train-labels-idx1-ubyte.gz"
    labels.write_bytes(gzip.compress(idx(np.array([2, 0, 1]))))
    read = load_training_samples(str(images), ANY, preprocess=read_preprocess("scale=1/255"))
    np.testing.assert_allclose(read.arrays["input"], pictures / 255, rtol=1e-6)
    assert read.arrays["input"].dtype == np.float32
    assert read.labels is not None
    assert read.labels.tolist() == [2, 0, 1]
    assert read.shapes == ((4, 4),)


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3)])
def test_folders_of_pictures_keep_their_channels(tmp_path: Path, mode: str, channels: int) -> None:
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        for number in range(2):
            Image.new(mode, (6, 5)).save(tmp_path / label / f"{number}.png")
    read = load_training_samples(str(tmp_path), ANY)
    assert read.shapes == ((channels, 5, 6),)
    assert read.labels is not None
    assert read.labels.tolist() == [0, 0, 1, 1]
    resized = load_training_samples(str(tmp_path), ANY, input_shapes={"input": (1, channels, 8, 8)})
    assert resized.shapes == ((channels, 8, 8),)


def test_a_shape_that_has_no_effect_is_refused(tmp_path: Path) -> None:
    """Arrays have their shape; only pictures in a folder are resized."""
    np.savez(tmp_path / "d.npz", x=np.ones((4, 3, 8, 8)), y=[0, 1, 0, 1])
    spec = str(tmp_path / "d.npz")
    with pytest.raises(UsageError, match="there is no input 'foo' to give a shape") as caught:
        load_training_samples(spec, ANY, input_shapes={"foo": (1, 3, 8, 8)})
    assert caught.value.hint == "inputs: input"
    wrong = "input=1,3,16,16 is not the shape of the samples, which is N,3,8,8"
    with pytest.raises(UsageError, match=wrong):
        load_training_samples(spec, ANY, input_shapes={"input": (1, 3, 16, 16)})
    kept = load_training_samples(spec, ANY, input_shapes={"input": (1, 3, 8, 8)})
    assert kept.shapes == ((3, 8, 8),)


def test_whole_numbers_in_rows_are_tokens_and_others_are_not(tmp_path: Path) -> None:
    np.savez(tmp_path / "t.npz", x=np.arange(6).reshape(2, 3))
    np.savez(tmp_path / "p.npz", x=np.arange(8, dtype=np.uint8).reshape(2, 2, 2))
    tokens = load_training_samples(str(tmp_path / "t.npz"), ANY)
    pictures = load_training_samples(str(tmp_path / "p.npz"), ANY)
    assert tokens.arrays["input"].dtype == np.int64
    assert pictures.arrays["input"].dtype == np.float32
    floats = load_training_samples(str(tmp_path / "t.npz"), {"input": "float32"})
    assert floats.arrays["input"].dtype == np.float32


def test_more_samples_than_a_feed_stay_in_order(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(150, 3)).astype(np.float32)
    np.savez(tmp_path / "d.npz", x=values, y=np.arange(150) % 7)
    read = load_training_samples(str(tmp_path / "d.npz"), ANY)
    np.testing.assert_array_equal(read.arrays["input"], values)
    test = load_test_samples(str(tmp_path / "d.npz"), read.inputs, preprocess=None)
    np.testing.assert_array_equal(test.arrays["input"], values)


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.ones((4, 3)), y=[0, 1, 0, 1])
    np.savez(tmp_path / "b.npz", x=np.ones((4, 5)), y=[0, 1, 0, 1])
    np.savez(tmp_path / "c.npz", dense=np.ones((4, 5)), categories=np.ones((4, 2), int))
    read = load_training_samples(str(tmp_path / "a.npz"), ANY)
    with pytest.raises(DataInvalid, match=r"data is \(4, 5\), the model wants \(n, 3\)"):
        load_test_samples(str(tmp_path / "b.npz"), read.inputs, preprocess=None)
    with pytest.raises(DataInvalid, match="nothing can be learned from it"):
        load_training_samples("random:0", ANY)
    both = {"dense": "float32", "categories": "int64"}
    assert load_training_samples(str(tmp_path / "c.npz"), both).shapes == ((5,), (2,))
    steps = read_preprocess("scale=2")
    with pytest.raises(DataInvalid, match="this one has dense, categories"):
        load_training_samples(str(tmp_path / "c.npz"), both, preprocess=steps)


def test_labels() -> None:
    with pytest.raises(DataInvalid, match="have no labels"):
        check_labels(None, "d.npz")
    with pytest.raises(DataInvalid, match="all labels are 0"):
        check_labels(np.zeros(3, int), "d.npz")
    assert class_warnings(np.array([0, 3]), 4) == ("no sample of 2 of the 4 classes (1, 2)",)
    assert class_warnings(np.array([0, 1]), 2) == ()
