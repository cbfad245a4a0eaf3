"""What is said about data that training cannot use as they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgecompress.core.errors import DataInvalid, UsageError
from edgecompress.pipeline.training_data import load_training_samples


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two classes of colour pictures of two sizes."""
    for label, size in ((0, 20), (1, 24)):
        folder = tmp_path / "pictures" / str(label)
        folder.mkdir(parents=True)
        Image.new("RGB", (size, size), (9, 9, 9)).save(folder / "a.png")
    return tmp_path / "pictures"


def test_pictures_of_several_sizes_are_told_the_form_of_the_cure(pictures: Path) -> None:
    with pytest.raises(DataInvalid) as caught:
        load_training_samples(str(pictures), {"input": "float32"})
    assert caught.value.hint == "fix it with --input-shape input=1,3,HEIGHT,WIDTH"
    with pytest.raises(UsageError, match="input=3,16,16 is not the shape of a batch") as refused:
        load_training_samples(
            str(pictures), {"input": "float32"}, input_shapes={"input": (3, 16, 16)}
        )
    assert "batch first: input=1,3,32,32" in refused.value.hint
    found = load_training_samples(
        str(pictures), {"input": "float32"}, input_shapes={"input": (1, 3, 16, 16)}
    )
    assert found.shapes == ((3, 16, 16),)


def test_clicks_are_labels(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "c.npz",
        dense=np.ones((4, 2), np.float32),
        categories=np.zeros((4, 1), np.int64),
        clicks=np.array([0, 1, 1, 0]),
    )
    types = {"dense": "float32", "categories": "int64"}
    found = load_training_samples(str(tmp_path / "c.npz"), types)
    assert found.labels is not None
    assert found.labels.tolist() == [0, 1, 1, 0]
