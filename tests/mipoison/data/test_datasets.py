"""Data sets are read from small files made here, and from the real ones if this machine has them."""

import gzip
import importlib.util
import os
import struct
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torchvision.datasets
from PIL import Image
from torchvision.datasets.mnist import read_sn3_pascalvincent_tensor

from mipoison.data.datasets import DATASETS, DataError, load_dataset, read_idx

SHARED = Path(os.environ.get("MIPOISON_TEST_DATA") or Path(__file__).parents[4] / "shared" / "data")


def real(name: str) -> Path:
    """A file or folder of the real sets, or skip."""
    if not (SHARED / name).exists():
        pytest.skip(f"no {SHARED / name}: set MIPOISON_TEST_DATA to a folder that has {name}")
    return SHARED / name


def message(call: Callable[[], object]) -> str:
    """The message of the DataError that the call raises: always one line."""
    with pytest.raises(DataError) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    return text


def faces(root: Path, *, people: int = 4, each: int = 5, mode: str = "L", suffix: str = ".png") -> Path:
    rng = np.random.default_rng(0)
    for person in range(people):
        folder = root / f"p{person}"
        folder.mkdir(parents=True)
        for i in range(each):
            image = Image.fromarray(rng.integers(0, 256, (20, 24) if mode == "L" else (20, 24, 3), np.uint8))
            image.save(folder / f"{i}{suffix}", lossless=True)  # lossy WebP would tint grey images
    return root


def npz(path: Path, **arrays: object) -> Path:
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


def write_idx(path: Path, array: np.ndarray) -> None:
    data = struct.pack(f">I{array.ndim}I", 0x800 + array.ndim, *array.shape)
    data += array.astype(np.uint8).tobytes()
    with gzip.open(path, "wb", compresslevel=1) if path.suffix == ".gz" else path.open("wb") as stream:
        stream.write(data)


def small_mnist(root: Path, folder: str = "MNIST", suffix: str = ".gz") -> Path:
    """A torchvision root of 20 + 10 images; returns its raw folder."""
    raw = root / folder / "raw"
    raw.mkdir(parents=True)
    for part, n in (("train", 20), ("t10k", 10)):
        write_idx(raw / f"{part}-images-idx3-ubyte{suffix}", np.arange(n * 784).reshape(n, 28, 28) % 251)
        write_idx(raw / f"{part}-labels-idx1-ubyte{suffix}", np.arange(n) % 10)
    return raw


# ------------------------------------------------------------------------------------- names and table


@pytest.mark.parametrize("dataset", ["imagenet", "", "MNIST", "mnist:/tmp", "digits:"])
def test_unknown_name_lists_the_valid_ones(dataset: str) -> None:
    text = message(lambda: load_dataset(dataset))
    assert repr(dataset) in text
    assert "digits, mnist, fashion-mnist, cifar10, olivetti, lfw, lfw-30, facescrub:PATH, faces:PATH" in text


@pytest.mark.parametrize("dataset", ["faces", "faces:", "facescrub"])
def test_missing_path(dataset: str) -> None:
    assert "needs a path" in message(lambda: load_dataset(dataset))


def test_table() -> None:
    scales = {"digits": None, "mnist": 10.53, "fashion-mnist": 8.03, "cifar10": 16.0}  # the paper's sets
    assert {name: DATASETS[name].pixel_scale for name in scales} == scales
    for spec in DATASETS.values():
        assert spec.description
        assert "private" in spec.class_rule
        if spec.kind == "identities":
            assert spec.pixel_scale == 4.0
            assert spec.image_shape[1:] == (64, 64)


# ------------------------------------------------------------------------------------------ IDX, MNIST


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize(("dataset", "folder"), [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST")])
def test_mnist_layout_read_only(tmp_path: Path, dataset: str, folder: str, suffix: str) -> None:
    small_mnist(tmp_path, folder, suffix)
    before = sorted(tmp_path.rglob("*"))
    raw = load_dataset(dataset, data_root=tmp_path, download=False)
    assert sorted(tmp_path.rglob("*")) == before
    assert raw.images_NHWC.shape == (30, 32, 32, 1)
    assert raw.official_test_N is not None
    assert raw.official_test_N.tolist() == [False] * 20 + [True] * 10
    inner = raw.images_NHWC[:20, 2:30, 2:30, 0]
    assert (inner == np.arange(20 * 784).reshape(20, 28, 28) % 251).all()
    assert raw.images_NHWC.sum() == raw.images_NHWC[:, 2:30, 2:30].sum()
    assert raw.labels_N.tolist() == [*range(10)] * 3


def damage_cases() -> list[tuple[str, Callable[[bytes], bytes], str]]:
    return [
        ("train-images-idx3-ubyte", lambda b: b[:-1], "truncated, expected 15680 bytes of data, got 15679"),
        ("train-images-idx3-ubyte", lambda b: b + b"x", "longer than its header says"),
        ("train-images-idx3-ubyte", lambda b: b[:9], "truncated or damaged"),
        ("train-images-idx3-ubyte", lambda b: b"", "magic number ''"),
        ("train-images-idx3-ubyte", lambda b: b"<html>", "magic number '3c68746d'"),
        ("train-images-idx3-ubyte", lambda b: b[:8] + struct.pack(">2I", 56, 14) + b[16:], "[N, 28, 28]"),
        ("train-images-idx3-ubyte", lambda b: b[:4] + b"\xff" * 4 + b[8:], "N at most 1000000"),
        ("train-labels-idx1-ubyte", lambda b: struct.pack(">2I", 0x801, 19) + b[8:-1], "expected 20 labels"),
        ("t10k-labels-idx1-ubyte", lambda b: b[:-1] + b"\x0b", "expected labels 0 to 9"),
    ]


@pytest.mark.parametrize(("file", "damage", "expected"), damage_cases())
def test_damaged_idx(tmp_path: Path, file: str, damage: Callable[[bytes], bytes], expected: str) -> None:
    path = small_mnist(tmp_path, suffix="") / file
    path.write_bytes(damage(path.read_bytes()))
    text = message(lambda: load_dataset("mnist", data_root=tmp_path, download=False))
    assert expected in text
    assert "labels 0 to 9" in text or str(path) in text


def test_damaged_gzip(tmp_path: Path) -> None:
    path = small_mnist(tmp_path) / "train-images-idx3-ubyte.gz"
    whole = path.read_bytes()
    for data in (whole[: len(whole) // 2], b"not gzip at all", whole[:40] + b"\xff" * 20 + whole[60:]):
        path.write_bytes(data)
        text = message(lambda: load_dataset("mnist", data_root=tmp_path, download=False))
        assert str(path) in text
        assert "damaged" in text


def test_download_lands_in_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Fake:
        def __init__(self, root: str, download: bool) -> None:
            small_mnist(Path(root), suffix="")

    monkeypatch.setattr(torchvision.datasets, "MNIST", Fake)
    assert len(load_dataset("mnist", data_root=tmp_path / "new").labels_N) == 30
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["MNIST"]
    assert len(load_dataset("mnist", data_root=tmp_path / "new", download=False).labels_N) == 30


def test_sklearn_faces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Bunch:
        images = np.linspace(0, 1, 20 * 125 * 125, dtype=np.float32).reshape(20, 125, 125)
        target = np.repeat([0, 1], 10)

    seen: dict[str, object] = {}
    monkeypatch.setattr("sklearn.datasets.fetch_lfw_people", lambda **options: seen.update(options) or Bunch)
    raw = load_dataset("lfw", data_root=tmp_path)
    assert raw.images_NHWC.shape == (20, 64, 64, 1)
    assert raw.images_NHWC.max() == 255
    assert seen["data_home"] == str(tmp_path)
    assert seen["min_faces_per_person"] == 10


def test_lfw_npz_keeps_people_with_ten_images(tmp_path: Path) -> None:
    labels = np.repeat([3, 8, 9, 12], [10, 9, 11, 10])
    npz(tmp_path / "lfw.npz", images=np.zeros((40, 64, 64), np.uint8), labels=labels)
    raw = load_dataset("lfw", data_root=tmp_path, download=False)
    assert np.bincount(raw.labels_N).tolist() == [10, 11, 10]
    npz(tmp_path / "lfw.npz", images=np.zeros((20, 64, 64), np.uint8), labels=np.repeat([0, 1], [9, 11]))
    text = message(lambda: load_dataset("lfw", data_root=tmp_path, download=False))
    assert "1 identities with at least 10 images" in text


def test_lfw_30_keeps_people_with_thirty_images_of_the_same_file(tmp_path: Path) -> None:
    labels = np.repeat([3, 8, 9, 12], [30, 29, 31, 10])
    npz(tmp_path / "lfw.npz", images=np.zeros((100, 64, 64), np.uint8), labels=labels)
    assert np.bincount(load_dataset("lfw-30", data_root=tmp_path, download=False).labels_N).tolist() == [
        30,
        31,
    ]
    assert len(load_dataset("lfw", data_root=tmp_path, download=False).labels_N) == 100


def test_olivetti_must_be_grey(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 64, 64, 3), np.uint8)
    npz(tmp_path / "olivetti.npz", images=images, labels=np.repeat([0, 1], 10))
    text = message(lambda: load_dataset("olivetti", data_root=tmp_path, download=False))
    assert "expected images with 1 channel(s), got 3" in text


def test_centre_crop_antialiasing_and_16_bit(tmp_path: Path) -> None:
    root = faces(tmp_path)
    wide = np.zeros((256, 384), np.uint8)
    wide[:, 64:320] = np.indices((256, 256)).sum(0) % 2 * 255  # a checkerboard in the central square
    Image.fromarray(wide).save(root / "p0" / "0.png")
    Image.fromarray(np.full((64, 64), 257 * 100, np.uint16)).save(root / "p0" / "1.png")
    images = load_dataset(f"faces:{root}").images_NHWC
    assert np.abs(images[0].astype(float) - 127.5).max() <= 4  # averaged, none of the margin
    assert (images[1] == 100).all()


def test_bad_folders(tmp_path: Path) -> None:
    file = tmp_path / "file.txt"
    file.write_text("x")
    assert "does not exist; expected a folder" in message(lambda: load_dataset(f"faces:{tmp_path / 'no'}"))
    assert "is not a folder" in message(lambda: load_dataset(f"faces:{file}"))
    assert ".npz" not in message(lambda: load_dataset(f"facescrub:{tmp_path / 'no'}"))
    assert "0 identities" in message(lambda: load_dataset(f"faces:{tmp_path}"))
    assert "1 identities" in message(lambda: load_dataset(f"faces:{faces(tmp_path / 'one', people=1)}"))
    root = faces(tmp_path / "few", each=5)
    (root / "p2" / "0.png").unlink()
    (root / "empty").mkdir()
    text = message(lambda: load_dataset(f"faces:{root}"))
    assert "2 of 5 identities" in text
    assert "fewer than 5 images" in text
    assert "'empty' has 0, 'p2' has 4" in text


def png_header(width: int, height: int) -> bytes:
    """A PNG whose header states a size, with almost no data."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">2I5B", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


def test_unreadable_and_oversized_images_are_counted_and_named(tmp_path: Path) -> None:
    root = faces(tmp_path)
    whole = (root / "p0" / "0.png").read_bytes()
    (root / "p0" / "0.png").write_bytes(whole[: len(whole) // 2])
    (root / "p0" / "1.png").write_bytes(b"<html>404</html>")
    (root / "p1" / "0.png").write_bytes(png_header(9000, 9000))  # 81 megapixels
    (root / "p1" / "1.png").write_bytes(png_header(100_000, 100_000))  # a decompression bomb to Pillow
    (root / "p2" / "0.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    (root / "p3" / "dir.png").mkdir()
    text = message(lambda: load_dataset(f"faces:{root}"))
    assert "6 of 21 image files" in text
    for name in ("p0/0.png (unreadable)", "p0/1.png (unreadable)", "p2/0.png (unreadable)"):
        assert name in text
    assert "p1/0.png (over 64 megapixels), p1/1.png (over 64 megapixels)" in text
    assert text.endswith(", ...")


# --------------------------------------------------------------------------------------- the real sets


def decode(archive: Mapping[str, np.ndarray], prefix: str, rows_N: np.ndarray, mode: str) -> np.ndarray:
    """Some images of a compact set, by its own script."""
    spec = importlib.util.spec_from_file_location("prepare", real("prepare.py"))
    assert spec is not None
    assert spec.loader is not None
    prepare = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(prepare)
    data, offsets = archive[f"{prefix}jpeg"], archive[f"{prefix}offsets"]
    files = [data[offsets[i] : offsets[i + 1]] for i in rows_N]
    images: np.ndarray = prepare.decode(np.concatenate(files), np.cumsum([0, *map(len, files)]), mode)
    return images


@pytest.mark.parametrize(
    ("dataset", "folder", "mean", "sd"),
    [("mnist", "MNIST", 0.1307, 0.3081), ("fashion-mnist", "FashionMNIST", 0.2860, 0.3530)],
)
def test_real_mnist(tmp_path: Path, dataset: str, folder: str, mean: float, sd: float) -> None:
    raw_folder = real(f"{folder}/raw")
    raw = load_dataset(dataset, data_root=raw_folder.parents[1], download=False)
    assert raw.images_NHWC.shape == (70_000, 32, 32, 1)
    train = raw.images_NHWC[:60_000, 2:30, 2:30].astype(np.uint16)
    assert train.mean() / 255 == pytest.approx(mean, abs=1e-4)  # the figures that everyone normalises by
    assert np.sqrt((train**2).mean() - train.mean() ** 2) / 255 == pytest.approx(sd, abs=1e-4)
    for name in ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"):  # against torchvision's own reader
        (tmp_path / name).write_bytes(gzip.decompress((raw_folder / f"{name}.gz").read_bytes()))
        expected = read_sn3_pascalvincent_tensor(str(tmp_path / name)).numpy()
        assert (read_idx(raw_folder / f"{name}.gz") == expected).all()
        assert (read_idx(tmp_path / name) == expected).all()


def test_real_cifar10(tmp_path: Path) -> None:
    arrays: dict[str, np.ndarray] = {}
    with np.load(real("cifar10_jpeg.npz")) as archive:
        for part in ("train", "test"):
            labels = archive[f"{part}_labels"]
            rows = np.concatenate([np.flatnonzero(labels == label)[:30] for label in range(10)])
            images = decode(dict(archive), f"{part}_", rows, "RGB")
            arrays |= {f"{part}_images": images, f"{part}_labels": labels[rows]}
    npz(tmp_path / "cifar10.npz", **arrays)
    raw = load_dataset("cifar10", data_root=tmp_path, download=False)
    assert raw.images_NHWC.shape == (600, 32, 32, 3)
    assert np.bincount(raw.labels_N).tolist() == [60] * 10


def test_real_faces(tmp_path: Path) -> None:
    with np.load(real("lfw_jpeg.npz")) as archive:
        labels = archive["labels"]
        rows = np.flatnonzero(np.bincount(labels)[labels] >= 9)  # those with nine have to go
        npz(tmp_path / "lfw.npz", images=decode(dict(archive), "", rows, "L"), labels=labels[rows])
    lfw = load_dataset("lfw", data_root=tmp_path, download=False)
    assert lfw.images_NHWC.shape == (4126, 64, 64, 1)
    counts = np.bincount(lfw.labels_N)
    assert (len(counts), (counts >= 15).sum(), (counts >= 20).sum()) == (151, 89, 59)
    often = np.bincount(load_dataset("lfw-30", data_root=tmp_path, download=False).labels_N)
    assert sorted(often) == sorted(counts[counts >= 30])
    olivetti = load_dataset("olivetti", data_root=real("olivetti.npz").parent, download=False)
    assert olivetti.images_NHWC.shape == (400, 64, 64, 1)
    assert np.bincount(olivetti.labels_N).tolist() == [10] * 40
