"""Sets of faces: identities, crops, colour and grey."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mipoison.data.datasets import load_dataset
from tests.mipoison.data.test_datasets import faces, message, npz

# -------------------------------------------------------------------------------- the user's own faces


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".pgm", ".webp", ".JPG"])
def test_face_folder(tmp_path: Path, suffix: str) -> None:
    root = faces(tmp_path, suffix=suffix)
    (root / "p0" / "notes.txt").write_text("not an image")
    (root / ".cache").mkdir()
    raw = load_dataset(f"faces:{root}")
    assert raw.images_NHWC.shape == (20, 64, 64, 1)
    assert (raw.name, raw.kind, raw.official_test_N) == ("faces", "identities", None)
    assert raw.labels_N.tolist() == np.repeat(range(4), 5).tolist()


def test_colour_and_grey(tmp_path: Path) -> None:
    root = faces(tmp_path, mode="RGB")
    assert load_dataset(f"faces:{root}").images_NHWC.shape == (20, 64, 64, 3)
    assert load_dataset(f"facescrub:{root}").images_NHWC.shape == (20, 64, 64, 1)
    for path in root.rglob("*.png"):  # grey pictures stored as RGB are grey
        Image.open(path).convert("L").convert("RGB").save(path)
    assert load_dataset(f"faces:{root}").images_NHWC.shape == (20, 64, 64, 1)


def test_facescrub_keeps_the_200_with_most_images(tmp_path: Path) -> None:
    tiny = Image.new("L", (2, 2))
    tiny.save(tmp_path / "a.bmp")
    data = (tmp_path / "a.bmp").read_bytes()
    for person in range(203):
        folder = tmp_path / "people" / f"{person:03d}"
        folder.mkdir(parents=True)
        for i in range(6 if person >= 2 else 5):
            (folder / f"{i}.bmp").write_bytes(data)
    raw = load_dataset(f"facescrub:{tmp_path / 'people'}")
    assert np.bincount(raw.labels_N).tolist() == [6] * 200


def test_faces_npz(tmp_path: Path) -> None:
    images = np.random.default_rng(0).random((20, 32, 48))
    path = npz(tmp_path / "f.npz", images=images, labels=np.repeat(["ann", "bob"], 10))
    raw = load_dataset(f"faces:{path}")
    assert raw.images_NHWC.shape == (20, 64, 64, 1)
    assert raw.labels_N.tolist() == [0] * 10 + [1] * 10
    exact = np.random.default_rng(0).integers(0, 256, (20, 64, 64, 3), np.uint8)
    npz(path, images=exact, labels=np.arange(20) % 2 + 40)
    assert (load_dataset(f"faces:{path}").images_NHWC == exact).all()


def test_bad_faces_npz(tmp_path: Path) -> None:
    good: dict[str, object] = {"images": np.zeros((20, 64, 64), np.uint8), "labels": np.repeat([0, 1], 10)}
    path = tmp_path / "f.npz"
    cases: list[tuple[dict[str, object], str]] = [
        ({"images": np.zeros((20, 64), np.uint8)}, "expected images of shape [N, H, W]"),
        ({"images": np.zeros((20, 64, 64, 4), np.uint8)}, "got [20, 64, 64, 4]"),
        ({"images": np.zeros((20, 0, 64), np.uint8)}, "got [20, 0, 64]"),
        ({"images": np.full((20, 64, 64), 1.5)}, "must lie in [0, 1], got 1.5 to 1.5"),
        ({"images": np.zeros((20, 64, 64), np.int32)}, "got int32"),
        ({"labels": np.zeros((20, 1), int)}, "one an image, got int64 [20, 1]"),
        ({"labels": np.zeros(20, int)}, "1 identities"),
        ({"labels": np.repeat([0, 1], [16, 4])}, "1 of 2 identities"),
        ({"labels": np.array(["a", None] * 10, object)}, "not an .npz of plain arrays"),
    ]
    for change, expected in cases:
        npz(path, **(good | change))
        assert expected in message(lambda: load_dataset(f"faces:{path}"))
    npz(path, pictures=np.zeros(3))
    text = message(lambda: load_dataset(f"faces:{path}"))
    assert "no images, labels; expected images, labels, got pictures" in text
    whole = npz(path, **good).read_bytes()
    for data in (b"", b"text", whole[: len(whole) // 2]):
        path.write_bytes(data)
        assert str(path) in message(lambda: load_dataset(f"faces:{path}"))
