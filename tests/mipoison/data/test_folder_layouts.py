"""Folders of images in the layouts that users have: every file is read, refused, or named in the notes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mipoison.data.datasets import DataError, RawImages, load_dataset
from mipoison.data.splits import PARTS, describe, make_split


def put(folder: Path, n: int, suffix: str = ".png", start: int = 0, mode: str = "RGB") -> None:
    """Writes images of random colours, different ones in every class of both folders of a split."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([start, *"/".join(folder.parts[-2:]).encode()])
    for i in range(start, start + n):
        pixels = rng.integers(0, 255, (12, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).convert(mode).save(folder / f"{i}{suffix}")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes of five images."""
    for name in ("a", "b"):
        put(tmp_path / "img" / name, 5)
    return tmp_path / "img"


def sides(root: Path, *names: str) -> Path:
    for name in names:
        for label in ("x", "y"):
            put(root / name / label, 4)
    return root


def read(root: Path) -> RawImages:
    return load_dataset(f"folder:{root}", download=False, image_size=16)


def refused(root: Path) -> str:
    with pytest.raises(DataError) as info:
        read(root)
    text = str(info.value)
    assert "\n" not in text
    assert "\x1b" not in text
    return text


@pytest.mark.parametrize(
    "suffix", [".tif", ".tiff", ".ppm", ".pgm", ".bmp", ".webp", ".jpg", ".PNG", ".JPEG", ".TIF"]
)
def test_all_suffixes_that_torchvision_reads_are_read(suffix: str, root: Path) -> None:
    put(root / "b", 5, suffix, 10, mode="L" if suffix == ".pgm" else "RGB")
    found = read(root)
    assert np.bincount(found.labels_N).tolist() == [5, 10]
    assert found.notes == ""


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [("P", ".png"), ("RGBA", ".png"), ("LA", ".png"), ("1", ".png"), ("CMYK", ".jpg"), ("CMYK", ".tif")],
)
def test_other_modes_are_read_as_pillow_shows_them(mode: str, suffix: str, root: Path) -> None:
    put(root / "b", 1, suffix, 99, mode=mode)
    with Image.open(root / "b" / f"99{suffix}") as image:
        expected = np.asarray(image.convert("RGB").resize((16, 16), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(read(root).images_NHWC[-1], expected)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_are_scaled(suffix: str, root: Path) -> None:
    Image.fromarray(np.full((12, 12), 200 * 257, np.uint16)).save(root / "b" / f"z{suffix}")
    assert (read(root).images_NHWC[-1] == 200).all()


def test_floats_named_as_a_pixmap_are_refused(root: Path) -> None:
    Image.new("F", (9, 9), 0.5).save(root / "b" / "f.pfm")
    (root / "b" / "f.pfm").rename(root / "b" / "f.ppm")
    assert "b/f.ppm (32 bits a pixel and channel: save 8 or 16)" in refused(root)


@pytest.mark.parametrize("mode", ["F", "I"])
def test_pixels_without_a_known_white_are_refused(mode: str, root: Path) -> None:
    put(root / "b", 1, ".tif", 99, mode=mode)
    assert "1 of 11 image files" in refused(root)
    assert "b/99.tif (32 bits a pixel and channel: save 8 or 16)" in refused(root)


def test_several_pages_are_refused(root: Path) -> None:
    page = Image.new("RGB", (9, 9))
    page.save(root / "b" / "p.tif", save_all=True, append_images=[page, page])
    assert "b/p.tif (3 pages)" in refused(root)


@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_several_frames_are_refused(suffix: str, root: Path) -> None:
    frames = [Image.new("RGB", (9, 9), colour) for colour in ("red", "green", "blue")]
    frames[0].save(root / "b" / f"p{suffix}", save_all=True, append_images=frames[1:])
    assert f"b/p{suffix} (3 frames: save one by itself)" in refused(root)


def test_a_preview_in_a_camera_s_jpeg_is_no_second_image(root: Path) -> None:
    page = Image.new("RGB", (9, 9), "red")
    page.save(root / "b" / "p.jpg", format="MPO", save_all=True, append_images=[page])
    assert len(read(root).labels_N) == 11


def test_what_is_not_read_is_counted_and_named(root: Path) -> None:
    for name in ("a", "b"):
        put(root / name, 5, start=20)
    put(root / "b", 2, ".gif", 50)
    put(root / "__MACOSX" / "a", 1)
    put(root / ".cache", 1)
    put(root, 1)
    for name in ("a/x.heic", "a/notes.txt", "a/.DS_Store", "Thumbs.db", "b/._0.png", "b/no_suffix"):
        (root / name).write_text("")
    split = make_split(f"folder:{root}", auxiliary="same", seed=0, image_size=16)
    said = describe(split)
    assert said.endswith("; 11 files not read: 0.png, a/x.heic, b/50.gif, b/51.gif, Thumbs.db, ...")
    assert sum(len(getattr(split, part)) for part in PARTS) == 20


def test_too_few_images_name_the_files_that_were_not_read(root: Path) -> None:
    put(root / "b", 9, ".gif", 50)
    with pytest.raises(DataError, match=r"8 images a class are enough \(9 files not read: b/50.gif, "):
        make_split(f"folder:{root}", auxiliary="same", seed=0, image_size=16)


def test_names_are_escaped_in_messages(root: Path) -> None:
    (root / "b" / "x\x1b[31m\n.txt").write_text("")
    (root / os.fsdecode(b"b") / os.fsdecode(b"\xff.txt")).write_text("")
    notes = read(root).notes
    assert notes == r"2 files not read: b/x\x1b[31m\n.txt, b/\udcff.txt"
    (root / "b" / "x\x1b.png").write_bytes(b"")
    assert r"b/x\x1b.png (unreadable)" in refused(root)


def test_subfolders_of_a_class_are_told(root: Path) -> None:
    put(root / "b" / "2019", 3)
    assert read(root).notes == "3 images in subfolders count to the class above them: b/2019/"


@pytest.mark.parametrize("names", [("Train", "Attack"), ("TRAIN", "attack"), ("Private", "Public")])
def test_sides_in_capitals_are_an_explicit_split(names: tuple[str, str], tmp_path: Path) -> None:
    found = read(sides(tmp_path, *names))
    assert found.class_names == ("x", "y")
    assert found.public_N is not None
    assert (len(found.labels_N), int(found.public_N.sum())) == (16, 8)


def test_other_folders_beside_the_sides_hold_no_image(tmp_path: Path) -> None:
    sides(tmp_path, "train", "attack")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "readme.md").write_text("")
    (tmp_path / ".git").mkdir()
    (tmp_path / "train" / "list.csv").write_text("")
    found = read(tmp_path)
    assert found.class_names == ("x", "y")
    assert found.notes == "2 files not read: docs/readme.md, train/list.csv"


@pytest.mark.parametrize(
    "names",
    [
        ("train", "val"),
        ("train", "test"),
        ("Train", "Val", "Test"),
        ("train", "attack", "extra"),
        ("train", "attack", "val"),
        ("train", "attack", "test", "val"),
        ("train", "Train", "attack"),
        ("training", "validation"),
        ("train", "extra"),
    ],
)
def test_what_may_be_another_split_is_refused_with_the_remedy(names: tuple[str, ...], tmp_path: Path) -> None:
    text = refused(sides(tmp_path, *names))
    for name in names:
        assert f"{name}/" in text
    assert "exactly two folders, train/ (or private/) and attack/ (or public/)" in text


@pytest.mark.parametrize(
    "names", [("train_set", "attack_set"), ("trn", "tst"), ("train2", "val2"), ("members", "nonmembers")]
)
def test_two_folders_of_the_same_classes_are_a_split_by_any_name(
    names: tuple[str, str], tmp_path: Path
) -> None:
    text = refused(sides(tmp_path, *names))
    assert f"{names[0]}/" in text
    assert "exactly two folders, train/ (or private/) and attack/ (or public/)" in text
    for name in ("other", "third"):  # more folders than a split has
        put(tmp_path / name, 4)
    assert read(tmp_path).class_names == tuple(sorted((*names, "other", "third")))


def test_two_classes_may_have_subfolders(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        put(tmp_path / name / "images", 4)
    assert read(tmp_path).class_names == ("cat", "dog")
    put(tmp_path / "cat" / "2019", 4)
    put(tmp_path / "dog" / "2020", 4)
    assert np.bincount(read(tmp_path).labels_N).tolist() == [8, 8]


def test_a_test_folder_holds_the_private_test_images(tmp_path: Path) -> None:
    """All of train/ is trained on, all of test/ is tested; of attack/ a fifth is held out as without it."""
    without = make_split(
        f"folder:{sides(tmp_path, 'train', 'attack')}", auxiliary="same", seed=0, image_size=16
    )
    assert [len(getattr(without, part)) for part in PARTS] == [6, 2, 6, 2]
    assert not without.test_stated
    assert without.layout == "train/ = private (8 images), attack/ = the attacker's (8 images)"
    for label in ("x", "y"):
        put(tmp_path / "Test" / label, 3)
    raw = read(tmp_path)
    assert raw.public_N is not None
    assert raw.official_test_N is not None
    assert (int(raw.public_N.sum()), int(raw.official_test_N.sum())) == (8, 6)
    assert not (raw.public_N & raw.official_test_N).any()
    split = make_split(f"folder:{tmp_path}", auxiliary="same", seed=0, image_size=16)
    assert [len(getattr(split, part)) for part in PARTS] == [8, 6, 6, 2]
    assert split.test_stated
    assert "Test/ = private test images (6 images)" in describe(split)
    stated = {raw.images_NHWC[row].tobytes() for row in np.flatnonzero(raw.official_test_N)}
    pixels = (split.private_test.x_NCHW * 255).round().byte().permute(0, 2, 3, 1).contiguous().numpy()
    assert {image.tobytes() for image in pixels} == stated
    assert split.fingerprint != without.fingerprint
    small = make_split(f"folder:{tmp_path}", auxiliary="same", seed=0, image_size=16, limit=4)
    assert [len(getattr(small, part)) for part in PARTS] == [4, 1, 4, 1]


def test_a_test_folder_beside_an_attacker_of_other_classes(tmp_path: Path) -> None:
    for side, labels in (("train", "xy"), ("test", "xy"), ("attack", "uv")):
        for label in labels:
            put(tmp_path / side / label, 4)
    split = make_split(f"folder:{tmp_path}", auxiliary="disjoint", seed=0, image_size=16)
    assert [len(getattr(split, part)) for part in PARTS] == [8, 8, 6, 2]


def test_a_test_folder_has_the_classes_of_the_training_folder(tmp_path: Path) -> None:
    sides(tmp_path, "train", "attack")
    put(tmp_path / "test" / "x", 2)
    put(tmp_path / "test" / "z", 2)
    assert "'y', 'z' in only one of train/ and test/" in refused(tmp_path)


def test_test_images_that_are_training_images_are_counted(tmp_path: Path) -> None:
    sides(tmp_path, "train", "attack", "test")
    name = f"folder:{tmp_path}"
    assert make_split(name, auxiliary="same", seed=0, image_size=16).notes == ""
    for i in range(3):
        copied = (tmp_path / "train" / "x" / f"{i}.png").read_bytes()
        (tmp_path / "test" / "x" / f"{i}.png").write_bytes(copied)
    said = describe(make_split(name, auxiliary="same", seed=0, image_size=16))
    assert said.endswith("; 3 of 8 test images are training images too, pixel by pixel")


def test_copies_on_both_sides_are_counted_by_content(tmp_path: Path) -> None:
    for label, start in (("x", 0), ("y", 100)):
        put(tmp_path / "train" / label, 6, start=start)
        put(tmp_path / "attack" / label, 6, start=start + 50)
    name = f"folder:{tmp_path}"
    assert make_split(name, auxiliary="same", seed=0, image_size=16).notes == ""
    for i in range(6):  # under other names, and in another class
        target = tmp_path / "attack" / "y" / f"{150 + i}.png"
        target.write_bytes((tmp_path / "train" / "x" / f"{i}.png").read_bytes())
    said = describe(make_split(name, auxiliary="same", seed=0, image_size=16))
    assert said.endswith("; 6 of 12 attack images are private images too, pixel by pixel")
    target = tmp_path / "attack" / "x" / "50.png"
    target.unlink()
    target.symlink_to(tmp_path / "train" / "y" / "100.png")
    with pytest.raises(DataError, match=r"7 of 12 attack images are private.* other images into attack/"):
        make_split(name, auxiliary="same", seed=0, image_size=16)
    (tmp_path / "attack").rename(tmp_path / "old")
    (tmp_path / "attack").symlink_to(tmp_path / "train")
    shutil.rmtree(tmp_path / "old")
    with pytest.raises(DataError, match="12 of 12 attack images"):
        make_split(name, auxiliary="same", seed=0, image_size=16, limit=2)


def test_a_class_that_is_a_link_to_another_is_no_other_class(root: Path) -> None:
    for name, start in (("a", 20), ("b", 40)):
        put(root / name, 5, start=start)
    for name, other in (("c", "a"), ("d", "b")):
        (root / name).symlink_to(root / other)
    with pytest.raises(DataError, match=r"20 of 20 attack images.*remove the copies"):
        make_split(f"folder:{root}", auxiliary="disjoint", seed=0, image_size=16)


def test_classes_may_be_named_like_sides(tmp_path: Path) -> None:
    for name in ("bus", "car", "train", "test"):
        put(tmp_path / name, 3)
    assert read(tmp_path).class_names == ("bus", "car", "test", "train")


def _dangling(root: Path) -> None:
    (root / "b" / "l.png").symlink_to("/nonexistent/x.png")


def _dangling_class(root: Path) -> None:
    (root / "c").symlink_to("/nonexistent")


def _circle(root: Path) -> None:
    (root / "b" / "again").symlink_to(root)


def _pipe(root: Path) -> None:
    os.mkfifo(root / "b" / "p.png")


def _empty(root: Path) -> None:
    (root / "b" / "e.png").write_bytes(b"")


def _folder(root: Path) -> None:
    (root / "b" / "dir.png").mkdir()


def _unread_class(root: Path) -> None:
    put(root / "c", 3, ".gif")


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (_dangling, "1 of 11 image files"),
        (_dangling, "b/l.png (a broken link)"),
        (_dangling_class, "c in "),
        (_circle, "b/again in "),
        (_pipe, "b/p.png (no regular file)"),
        (_empty, "b/e.png (unreadable)"),
        (_folder, "b/dir.png (no regular file)"),
        (_unread_class, "'c' (holds 3 .gif)"),
    ],
)
def test_what_cannot_be_read_is_refused(make: Callable[[Path], None], told: str, root: Path) -> None:
    make(root)
    assert told in refused(root)


def test_links_to_images_are_followed(root: Path, tmp_path: Path) -> None:
    put(tmp_path / "elsewhere", 3, start=70)
    (root / "b" / "more").symlink_to(tmp_path / "elsewhere")
    (root / "b" / "one.png").symlink_to(tmp_path / "elsewhere" / "70.png")
    (root / "c").symlink_to(root / "a")
    assert np.bincount(read(root).labels_N).tolist() == [5, 9, 5]


def _each_other(root: Path, _: Path) -> None:
    (root / "a" / "l").symlink_to("../b")
    (root / "b" / "l").symlink_to("../a")


def _another_class(root: Path, _: Path) -> None:
    put(root / "b" / "deep", 2)
    (root / "a" / "l").symlink_to("../b/deep")


def _same_class(root: Path, _: Path) -> None:
    put(root / "a" / "deep", 2)
    (root / "a" / "l").symlink_to("deep")


def _from_outside(root: Path, outside: Path) -> None:
    put(outside, 2)
    (root / "a" / "l").symlink_to(outside)
    (outside / "back").symlink_to(root / "b")


def _circle_outside(root: Path, outside: Path) -> None:
    put(outside / "p", 2)
    put(outside / "q", 2)
    (root / "a" / "l").symlink_to(outside / "p")
    (outside / "p" / "l").symlink_to("../q")
    (outside / "q" / "l").symlink_to("../p")


def _twice(root: Path, outside: Path) -> None:
    put(outside / "p", 2)
    (root / "a" / "l").symlink_to(outside / "p")
    (root / "b" / "l").symlink_to(outside)


def _of_a_linked_class(root: Path, outside: Path) -> None:
    put(outside / "p", 5)
    (root / "c").symlink_to(outside)
    (root / "a" / "l").symlink_to(outside / "p")


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (_each_other, "a/l in "),
        (_another_class, "a/l in "),
        (_same_class, "a/l in "),
        (_from_outside, "a/l/back in "),
        (_circle_outside, "a/l/l/l in "),
        (_twice, "b/l/p in "),
        (_of_a_linked_class, "a/l in "),
    ],
)
def test_links_that_read_images_twice_are_refused(
    make: Callable[[Path, Path], None], told: str, root: Path, tmp_path: Path
) -> None:
    make(root, tmp_path / "outside")
    text = refused(root)
    assert text.startswith(f"folder: {told}")
    assert text.endswith(("read twice; remove it", "remove one of the links"))


def test_a_link_from_one_side_to_the_other_is_refused(tmp_path: Path) -> None:
    sides(tmp_path, "train", "attack")
    (tmp_path / "attack" / "x" / "l").symlink_to(tmp_path / "train" / "x")
    assert refused(tmp_path).startswith("folder: x/l in ")


def test_links_of_hidden_folders_are_nobody_s(root: Path) -> None:
    (root / ".venv" / "lib").mkdir(parents=True)
    (root / ".venv" / "lib64").symlink_to("lib")
    (root / "a" / ".back").symlink_to("../b")
    assert len(read(root).labels_N) == 10


def test_one_level_too_high_names_the_level(root: Path) -> None:
    assert f"are the classes those of {root}?" in refused(root.parent)


def test_faces_name_what_they_leave_out(tmp_path: Path) -> None:
    for person in ("p", "q"):
        put(tmp_path / person, 5)
    put(tmp_path / "p" / "crops", 1)
    (tmp_path / "p" / "x.heic").write_text("")
    found = load_dataset(f"faces:{tmp_path}")
    assert len(found.labels_N) == 10
    assert found.notes == "2 files not read: p/crops/0.png, p/x.heic"


def test_content_is_what_the_images_show_wherever_they_lie(root: Path, tmp_path: Path) -> None:
    before = read(root).content
    os.symlink(root, tmp_path / "link")
    for path in (f"{root}/", f"{root}/.", str(tmp_path / "link")):
        assert load_dataset(f"folder:{path}", image_size=16).content == before
    moved = root.rename(tmp_path / "moved")
    assert read(moved).content == before
    (moved / "a" / "0.png").replace(moved / "b" / "0.png")
    assert read(moved).content != before
