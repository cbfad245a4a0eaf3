"""Damaged and malicious data files: one clear sentence, the right class, and nothing is read."""

from __future__ import annotations

import gzip
import io
import os
import resource
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from PIL import Image
from safetensors.numpy import save_file

from edgecompress.core.errors import DataInvalid, EdgeCompressError, InputOutputFailed
from edgecompress.graph.model import Model, load_model
from edgecompress.pipeline.data import load_samples

TEXT = """<ir_version: 8, opset_import: ["" : 17]>
g (float[N,3,8,8] x) => (float[N,3,8,8] y) { y = Identity(x) }"""


@pytest.fixture
def model(tmp_path) -> Model:
    path = tmp_path / "model.onnx"
    onnx.save(onnx.parser.parse_model(TEXT), path)
    return load_model(path, normalize=False)


def refusal(path: Path, model: Model, error: type[EdgeCompressError] = DataInvalid) -> str:
    """The message; at most 64 MiB more memory than before may be used on the way to it."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(error) as caught:
        load_samples(str(path), model)
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown_kib < 64 << 10
    text = str(caught.value)
    assert "\n" not in text
    return text


def npy_bytes(header: str, values: bytes = b"", version: int = 1) -> bytes:
    width = "<H" if version == 1 else "<I"
    return (
        b"\x93NUMPY"
        + bytes([version, 0])
        + struct.pack(width, len(header))
        + header.encode()
        + values
    )


def header(shape: str, dtype: str = "'<f4'") -> str:
    return f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}, }}\n"


def test_archive_that_declares_8_gib(tmp_path, model) -> None:
    path = tmp_path / "bomb.npz"
    declared = header(f"({(8 << 30) // (3 * 64 * 4)}, 3, 8, 8)")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", npy_bytes(declared, bytes(1 << 20)))
    assert path.stat().st_size < 300_000
    assert "takes 8 GiB, more than the 4 GiB that data may have" in refusal(path, model)


def test_archive_whose_sizes_disagree(tmp_path, model) -> None:
    path = tmp_path / "lie.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", npy_bytes(header("(5, 3, 8, 8)"), bytes(1 << 20)))
    assert "where the array's header says" in refusal(path, model)


def test_objects_are_never_unpickled(tmp_path, model, monkeypatch) -> None:
    class Evil:
        def __reduce__(self):
            return os.system, ("touch PWNED",)

    monkeypatch.chdir(tmp_path)
    for name, save in (("d.npy", np.save), ("d.npz", np.savez)):
        save(tmp_path / name, np.array([Evil()], dtype=object))
        assert "holds Python objects" in refusal(tmp_path / name, model)
    assert not (tmp_path / "PWNED").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not a NumPy array"),
        (b"hello world", "not a NumPy array"),
        (b"\x93NUMPY\x02\x00" + struct.pack("<I", 1 << 31), "header declares 2147483648 bytes"),
        (npy_bytes("__import__('os').system('touch PWNED')"), "header is damaged"),
        (npy_bytes("(" * 4000), "header is damaged"),
        (npy_bytes(header("(-1, 3, 8, 8)")), "has a negative size"),
        (npy_bytes(header(f"({2**62}, 3, 8, 8)")), "more than the 4 GiB"),
        (npy_bytes(header(f"({2**40}, {2**40}, 8, 8)")), "more than the 4 GiB"),
        (npy_bytes(header("(0, 3, 8, 8)")), "is empty: its shape is (0, 3, 8, 8)"),
        (npy_bytes(header("()"), bytes(4)), "is a single number, not samples"),
        (npy_bytes(header("(1, 3, 8, 8)"), bytes(767)), "the file has 767 bytes of values where"),
        (npy_bytes(header("(1, 3, 8, 8)"), bytes(769)), "the file has 769 bytes of values where"),
        (npy_bytes(header("(4,)", "'<U8'"), bytes(128)), "holds <U8, not numbers"),
        (npy_bytes(header("(4,)", "[('a', '<f4')]"), bytes(16)), "not numbers"),
    ],
)
def test_arrays(tmp_path, model, monkeypatch, content: bytes, words: str) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "d.npy"
    path.write_bytes(content)
    assert words in refusal(path, model)
    assert not (tmp_path / "PWNED").exists()


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.95])
@pytest.mark.parametrize("form", ["npz", "safetensors"])
def test_truncated_archives(tmp_path, model, form: str, kept: float) -> None:
    path = tmp_path / f"d.{form}"
    values = np.random.default_rng(0).normal(size=(5, 3, 8, 8)).astype(np.float32)
    if form == "npz":
        np.savez_compressed(path, x=values)
    else:
        save_file({"x": values}, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    assert "not a readable" in refusal(path, model)


def test_flipped_bytes_in_an_archive_never_end_in_a_traceback(tmp_path, model) -> None:
    path = tmp_path / "d.npz"
    np.savez_compressed(path, x=np.random.default_rng(0).normal(size=(2, 3, 8, 8)))
    good, generator = path.read_bytes(), np.random.default_rng(1)
    refused = 0
    for place in generator.integers(0, len(good), 400):
        damaged = bytearray(good)
        damaged[place] ^= int(generator.integers(1, 256))
        path.write_bytes(damaged)
        try:
            load_samples(str(path), model)
        except DataInvalid:
            refused += 1
    assert refused > 300


def test_encrypted_entry(tmp_path, model) -> None:
    path = tmp_path / "d.npz"
    np.savez(path, x=np.zeros((2, 3, 8, 8)))
    content = bytearray(path.read_bytes())
    directory = content.index(b"PK\1\2")
    content[directory + 8] |= 1
    content[6] |= 1
    path.write_bytes(content)
    assert "not a readable archive" in refusal(path, model)


def test_safetensors_header_of_2_to_the_40(tmp_path, model) -> None:
    path = tmp_path / "d.safetensors"
    path.write_bytes(struct.pack("<Q", 1 << 40) + b"{}")
    assert "not a readable safetensors file" in refusal(path, model)
    lie = b'{"x":{"dtype":"F32","shape":[999,3,8,8],"data_offsets":[0,4]}}'
    path.write_bytes(struct.pack("<Q", len(lie)) + lie + bytes(4))
    assert "not a readable safetensors file" in refusal(path, model)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\0\0\x08", "not an IDX file"),
        (b"\0\0\x07\x01" + bytes(8), "not an IDX file"),
        (b"\0\0\x08\x03" + bytes(5), "header is truncated"),
        (b"\0\0\x08\x01\0\0\0\x05abc", "the file has 3 bytes of values where its header says 5"),
        (b"\0\0\x08\x01\0\0\0\x02abc", "the file has more bytes of values"),
        (b"\0\0\x0e\x02" + b"\xff" * 8, "more than the 4 GiB"),
        (b"\x1f\x8bjunk", "cannot be unzipped"),
        (gzip.compress(b"hello", mtime=0), "not an IDX file"),
        (gzip.compress(b"\0\0\x08\x01\0\0\0\x05abcde", mtime=0)[:-9], "cannot be unzipped"),
    ],
)
def test_idx(tmp_path, model, content: bytes, words: str) -> None:
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(content)
    assert words in refusal(path, model)


def test_gzip_bomb(tmp_path, model) -> None:
    """256 MiB of zeros behind a header that declares 100 bytes."""
    path = tmp_path / "bomb-images.gz"
    packer = zlib.compressobj(9, wbits=31)
    chunks = [packer.compress(b"\0\0\x08\x01\0\0\0\x64")]
    chunks += [packer.compress(bytes(1 << 20)) for _ in range(256)]
    path.write_bytes(b"".join(chunks) + packer.flush())
    assert path.stat().st_size < 300_000
    assert "has more bytes of values" in refusal(path, model)


def test_labels_that_do_not_fit(tmp_path, model) -> None:
    (tmp_path / "images").write_bytes(b"\0\0\x08\x01\0\0\0\x03abc")
    (tmp_path / "labels").write_bytes(b"\0\0\x08\x01\0\0\0\x02ab")
    text = refusal(tmp_path / "images", model)
    assert "labels of shape (2,) do not fit the 3 samples" in text


def png_header(width: int, height: int) -> bytes:
    """A PNG that declares a size and holds almost nothing."""
    body = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + body
    data = b"IDAT" + zlib.compress(bytes(1000))
    return (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", len(body)) + chunk + struct.pack(">I", zlib.crc32(chunk))
        + struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))
        + struct.pack(">I", 0) + b"IEND" + struct.pack(">I", zlib.crc32(b"IEND"))
    )  # fmt: skip


@pytest.mark.parametrize(
    ("size", "words"),
    [
        ((20000, 20000), "too large to be opened"),
        ((9500, 9500), "too large to be opened"),
        ((8200, 8000), "declares 8200x8000 pixels"),
    ],
)
def test_pictures_of_enormous_size(tmp_path, model, size: tuple[int, int], words: str) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "a.png").write_bytes(png_header(*size))
    assert words in refusal(folder, model)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.png", b""),
        ("a.png", b"hello"),
        ("a.png", b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
        ("a.png", png_header(64, 64)),
        ("a.jpg", b"\xff\xd8\xff\xe0 JFIF"),
    ],
)
def test_pictures_that_are_none(tmp_path, model, name: str, content: bytes) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / name).write_bytes(content)
    assert "the picture cannot be decoded" in refusal(folder, model)


def test_truncated_jpeg(tmp_path, model) -> None:
    folder, stream = tmp_path / "set", io.BytesIO()
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(stream, "JPEG")
    (folder / "a.jpg").write_bytes(stream.getvalue()[:1500])
    text = refusal(folder, model)
    assert "a.jpg: the picture cannot be decoded" in text


def test_animation_gives_its_first_picture(tmp_path, model) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    frames = [Image.new("RGB", (8, 8), (shade, 0, 0)) for shade in (10, 200)]
    frames[0].save(folder / "a.png", save_all=True, append_images=frames[1:])
    assert load_samples(str(folder), model).feeds[0]["x"].max() == 10


def test_folders(tmp_path, model) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    assert "no PNG or JPEG pictures in the folder" in refusal(folder, model)
    (folder / "class").mkdir()
    assert "no PNG or JPEG pictures in the class folder" in refusal(folder, model)
    (folder / "loop").symlink_to(folder)
    (folder / "class" / "a.png").write_bytes(png_header(8, 8))
    assert "a class folder is a symbolic link" in refusal(folder, model)
    (folder / "loop").unlink()
    (folder / "b.png").write_bytes(png_header(8, 8))
    assert "has both pictures (b.png, ...) and sub-folders (class, ...)" in refusal(folder, model)


def test_pipes_and_devices_are_not_read(tmp_path, model) -> None:
    os.mkfifo(tmp_path / "pipe.npz")
    assert "not a regular file" in refusal(tmp_path / "pipe.npz", model, InputOutputFailed)
    assert "not a regular file" in refusal(Path("/dev/zero"), model, InputOutputFailed)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_file_without_permission(tmp_path, model) -> None:
    np.save(tmp_path / "d.npy", np.zeros((1, 3, 8, 8)))
    (tmp_path / "d.npy").chmod(0)
    assert "Permission denied" in refusal(tmp_path / "d.npy", model, InputOutputFailed)
