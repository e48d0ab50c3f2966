"""Which files below a folder are images of a class, and how the others are named."""

from __future__ import annotations

from pathlib import Path

from mipoison.data.walking import class_files, describe_unread, folders_in, hidden, is_image


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_images_and_other_files_by_hand(tmp_path: Path) -> None:
    first, nested = touch(tmp_path / "a" / "1.png"), touch(tmp_path / "a" / "sub" / "2.JPG")
    text, loose = touch(tmp_path / "b" / "x.txt"), touch(tmp_path / "3.png")
    other = touch(tmp_path / ".cache" / "4.png")
    files, unread = class_files("folder", tmp_path)
    assert files == {"a": [first, nested], "b": []}
    assert sorted(unread) == sorted([text, loose, other])
    assert class_files("faces", tmp_path, nested=False)[0]["a"] == [first]
    assert [path.name for path in folders_in(tmp_path)] == ["a", "b"]
    assert describe_unread(unread, tmp_path) == "3 files not read: 3.png, b/x.txt, .cache/4.png"
    assert describe_unread([], tmp_path) == ""


def test_hidden_names(tmp_path: Path) -> None:
    assert hidden(Path(".git"))
    assert hidden(Path("__MACOSX"))
    assert not hidden(Path("cat"))
    assert not is_image(tmp_path / ".thumbs" / "a.png", tmp_path)
