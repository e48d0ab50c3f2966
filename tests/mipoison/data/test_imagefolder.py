"""Image folders of the user: sorted classes, the size asked for, and one-line errors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mipoison.data.datasets import DataError, load_dataset
from mipoison.data.splits import PARTS, make_split

Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Writes ``n`` images a class, each of one grey level of its own; classes by name."""

    def write(names: list[str], n: int = 8, size: tuple[int, int] = (20, 14), below: str = "") -> Path:
        for i, name in enumerate(names):
            folder = tmp_path / "data" / below / name
            folder.mkdir(parents=True)
            for j in range(n):
                Image.new("L", size, 16 * i + j + 100 * (below in ("attack", "public"))).save(
                    folder / f"{j}.png"
                )
        return tmp_path / "data"

    return write


def message(call: Callable[[], object]) -> str:
    with pytest.raises(DataError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_labels_count_the_sorted_names(make: Make) -> None:
    raw = load_dataset(f"folder:{make(['zebra', 'ant', 'cow'])}", image_size=16)
    assert raw.class_names == ("ant", "cow", "zebra")
    assert raw.images_NHWC.shape == (24, 16, 16, 1)  # grey, since every image is
    assert raw.public_N is None
    # written in the order zebra, ant, cow: grey levels say which label an image must have
    assert raw.labels_N.tolist() == [{0: 2, 1: 0, 2: 1}[int(i) // 16] for i in raw.images_NHWC[:, 0, 0, 0]]


@pytest.mark.parametrize("side", [16, 32, 64])
def test_the_central_square_is_resized(tmp_path: Path, side: int) -> None:
    """The central square of a wide image is cropped: its vertical edge stays in the centre."""
    pixels = np.full((48, 96), 200, np.uint8)
    pixels[:, 24:48], pixels[:, 48:72] = 0, 100
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.fromarray(pixels).save(tmp_path / name / "x.png")
    image = load_dataset(f"folder:{tmp_path}", image_size=side).images_NHWC[0, ..., 0]
    assert image.shape == (side, side)
    assert (image[:, : side // 2 - 2] == 0).all()
    assert (image[:, side // 2 + 2 :] == 100).all()


def test_colour_stays_and_the_default_side_is_32(make: Make) -> None:
    root = make(["a", "b"])
    Image.new("RGB", (40, 40), (250, 10, 90)).save(root / "a" / "colour.jpg")
    images = load_dataset(f"folder:{root}").images_NHWC
    assert images.shape == (17, 32, 32, 3)
    assert np.abs(images[8, 5, 5].astype(int) - (250, 10, 90)).max() < 6  # JPEG


def test_subfolders_count_to_their_class_and_hidden_files_do_not(make: Make) -> None:
    root = make(["a", "b"])
    (root / "a" / "more").mkdir()
    Image.new("L", (9, 9)).save(root / "a" / "more" / "x.png")
    Image.new("L", (9, 9)).save(root / "a" / ".hidden.png")
    (root / "a" / "notes.txt").write_text("no image")
    (root / ".cache").mkdir()
    assert len(load_dataset(f"folder:{root}").labels_N) == 17


@pytest.mark.parametrize("size", [8, 28, 0, 128])
def test_other_sizes_name_the_choices(make: Make, size: int) -> None:
    root = make(["a", "b"])
    assert "16, 32, 64" in message(lambda: load_dataset(f"folder:{root}", image_size=size))
    assert "digits is 16x16" in message(lambda: load_dataset("digits", image_size=16))


def test_faults_are_one_line(make: Make, tmp_path: Path) -> None:
    assert "does not exist" in message(lambda: load_dataset(f"folder:{tmp_path / 'none'}"))
    assert "0 class folders" in message(lambda: load_dataset(f"folder:{tmp_path}"))
    root = make(["a", "b"])
    (root / "c").mkdir()
    assert "1 of 3 classes" in message(lambda: load_dataset(f"folder:{root}"))
    (root / "c" / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    said = message(lambda: load_dataset(f"folder:{root}"))
    assert "1 of 17 image files" in said
    assert "c/bad.png (unreadable)" in said
    only = tmp_path / "only" / "one"
    only.mkdir(parents=True)
    Image.new("L", (9, 9)).save(only / "x.png")
    assert "1 class folder in" in message(lambda: load_dataset(f"folder:{tmp_path / 'only'}"))


# --------------------------------------------------------------------------------------------- splits


def levels(root: Path, part: str, **settings: object) -> set[int]:
    """The grey levels of a part: each image has its own."""
    split = make_split(f"folder:{root}", seed=0, image_size=16, **settings)  # type: ignore[arg-type]
    return set((getattr(split, part).x_NCHW[:, 0, 0, 0] * 255).round().int().tolist())


def test_same_makes_every_class_private(make: Make) -> None:
    split = make_split(f"folder:{make(['a', 'b', 'c'], n=12)}", auxiliary="same", seed=0, image_size=16)
    assert (split.n_classes, split.n_open_classes) == (3, 3)
    for part in PARTS:
        assert set(getattr(split, part).y_N.tolist()) == {0, 1, 2}
    assert sum(len(getattr(split, part)) for part in PARTS) == 36


def test_disjoint_takes_the_first_half_by_name(make: Make) -> None:
    root = make(["d", "c", "b", "a", "e"], n=10)
    split = make_split(f"folder:{root}", auxiliary="disjoint", seed=3, image_size=16)
    assert (split.n_classes, split.n_open_classes) == (2, 5)
    found = levels(root, "private_train", auxiliary="disjoint")
    assert {level // 16 for level in found} == {2, 3}  # a and b were written third and fourth
    said = message(lambda: make_split(f"folder:{three(root)}", auxiliary="disjoint", seed=0))
    assert "half of 3 classes" in said


def three(root: Path) -> Path:
    """The same folder with three classes left."""
    for name in ("d", "e"):
        for path in (root / name).iterdir():
            path.unlink()
        (root / name).rmdir()
    return root


@pytest.mark.parametrize(("private", "public"), [("train", "attack"), ("private", "public")])
def test_an_explicit_split_is_kept(make: Make, private: str, public: str) -> None:
    make(["a", "b"], below=private)
    root = make(["a", "b"], below=public, n=9)
    Image.new("L", (9, 9), 255).save(root / public / "b" / "mark.png")
    raw = load_dataset(f"folder:{root}")
    assert raw.public_N is not None
    assert raw.public_N.sum() == 19
    own = levels(root, "private_train", auxiliary="same") | levels(root, "private_test", auxiliary="same")
    other = levels(root, "attack_train", auxiliary="same") | levels(root, "attack_test", auxiliary="same")
    assert 255 in other
    assert 255 not in own
    split = make_split(f"folder:{root}", auxiliary="same", seed=1)
    assert [len(getattr(split, part)) for part in PARTS] == [12, 4, 15, 4]
    said = message(lambda: make_split(f"folder:{root}", auxiliary="disjoint", seed=0))
    assert "'a', 'b' in both folders; or use same" in said


def test_an_explicit_split_of_other_classes(make: Make) -> None:
    make(["a", "b"], below="train")
    root = make(["c", "d", "e"], below="attack")
    split = make_split(f"folder:{root}", auxiliary="disjoint", seed=0)
    assert (split.n_classes, split.n_open_classes) == (2, 5)
    assert set(split.attack_train.y_N.tolist()) == {2, 3, 4}
    said = message(lambda: make_split(f"folder:{root}", auxiliary="same", seed=0))
    assert "'a', 'b', 'c', 'd', 'e' not in both folders; or use disjoint" in said


def test_other_pairs_of_sides_are_no_classes(make: Make) -> None:
    make(["a", "b"], below="train")
    root = make(["a", "b"], below="val")
    assert "an explicit split is exactly two folders" in message(lambda: load_dataset(f"folder:{root}"))


def test_the_fingerprint_is_of_the_content(make: Make, tmp_path: Path) -> None:
    root = make(["a", "b"])
    before = make_split(f"folder:{root}", auxiliary="same", seed=0).fingerprint
    moved = root.rename(tmp_path / "moved")
    assert make_split(f"folder:{moved}", auxiliary="same", seed=0).fingerprint == before
    assert make_split(f"folder:{moved}", auxiliary="same", seed=0, image_size=16).fingerprint != before
    Image.new("L", (9, 9), 77).save(moved / "a" / "0.png")
    assert make_split(f"folder:{moved}", auxiliary="same", seed=0).fingerprint != before


def test_all_classes_of_a_built_in_set_can_be_private() -> None:
    half = make_split("digits", auxiliary="same", seed=0)
    whole = make_split("digits", auxiliary="same", seed=0, all_private=True)
    assert (half.n_classes, whole.n_classes) == (5, 10)
    assert sum(len(getattr(whole, part)) for part in PARTS) == 1797
    assert half.fingerprint != whole.fingerprint
