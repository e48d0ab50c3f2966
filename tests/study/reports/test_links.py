"""No program writes through a link out of its folder: every output is planted as a link."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mipoison.config import ConfigError
from mipoison.storage.files import Storage
from study import render, report, reproduce
from study.reports import html, report_files

Make = Callable[[Path, Path], None]


def link(place: Path, outside: Path) -> None:
    place.symlink_to(outside)


def dangling(place: Path, outside: Path) -> None:
    place.symlink_to(outside.with_name("not-there"))


def hard_link(place: Path, outside: Path) -> None:
    os.link(outside, place)


WRITERS: dict[str, tuple[Callable[[Path, Path], int], tuple[str, ...]]] = {
    "render": (lambda s, out: render.main([str(s)]), ("s/report.md", "s/frontier.png")),
    "render --out": (
        lambda s, out: render.main([str(s), "--out", str(out)]),
        ("out/report.md", "out/frontier.png"),
    ),
    "render --compact": (
        lambda s, out: render.main([str(s), "--compact", str(out)]),
        ("out/episodes.parquet", "out/study.json", "out/report.md", "out/frontier.png"),
    ),
    "report": (
        lambda s, out: report.main([str(s), "--vectors", "no"]),
        ("s/report.html", "s/label.json"),
    ),
    "report --out": (
        lambda s, out: report.main([str(s), "--vectors", "no", "--out", str(out / "page.html")]),
        ("out/page.html",),
    ),
}


@pytest.mark.parametrize("make", [link, dangling, hard_link], ids=lambda make: make.__name__)
@pytest.mark.parametrize(
    ("writer", "name"), [(w, name) for w, (_, names) in WRITERS.items() for name in names]
)
def test_nothing_outside_is_written(
    writer: str, name: str, make: Make, small_study: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    root, outside = tmp_path / "root", tmp_path / "outside"
    outside.mkdir()
    (outside / "mine").write_bytes(b"mine")
    shutil.copytree(small_study, root / "s", ignore=shutil.ignore_patterns("pictures"))
    (root / "out").mkdir()
    (root / name).unlink(missing_ok=True)
    make(root / name, outside / "mine")
    # What is written is not looked at here, and making it takes most of the time.
    monkeypatch.setattr(report_files, "frontier_figure", lambda *a, **k: a[2].write_bytes(b"drawn"))
    monkeypatch.setattr(report_files, "markdown", lambda found: "tables")
    monkeypatch.setattr(html, "build", lambda *a, **k: "page")
    code = WRITERS[writer][0](root / "s", root / "out")
    said = capsys.readouterr().err
    assert [p.name for p in outside.iterdir()] == ["mine"]
    assert (outside / "mine").read_bytes() == b"mine"
    if make is hard_link:  # replaced by a new file
        assert code == 0
        assert (root / name).stat().st_nlink == 1
    else:
        assert code == 2
        assert "by a link: remove the link" in said
        assert said.strip().count("\n") == 0


def test_reproductions_write_through_no_link(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = Path(reproduce.__file__).parent / "results" / "reproduction" / "lfw"
    for name in ("table_I.md", "table_I.csv"):
        root = tmp_path / name
        shutil.copytree(results, root / "reproduction" / "lfw")
        (tmp_path / "mine").write_bytes(b"mine")
        (root / "reproduction" / name).symlink_to(tmp_path / "mine")
        assert reproduce.main(["--render", "--table", "I", "--storage", str(root)]) == 2
        assert "by a link" in capsys.readouterr().err
        assert (tmp_path / "mine").read_bytes() == b"mine"


def test_a_linked_folder_is_not_written_through_even_within_the_root(tmp_path: Path) -> None:
    storage = Storage(tmp_path / "root")
    storage.write("mine/episodes/none.a0.parquet", b"mine")
    (tmp_path / "root" / "theirs").mkdir()
    (tmp_path / "root" / "theirs" / "episodes").symlink_to(tmp_path / "root" / "mine" / "episodes")
    with pytest.raises(ConfigError, match="leads through a link"):
        storage.write("theirs/episodes/none.a0.parquet", b"theirs")
    assert storage.read("mine/episodes/none.a0.parquet") == b"mine"


def test_what_is_in_the_way_is_moved_aside(tmp_path: Path) -> None:
    """A folder where a file belongs, or a file where a folder belongs: the study goes on, nothing is lost."""
    storage = Storage(tmp_path / "root")
    (tmp_path / "root" / "s" / "episodes" / "none.a0.parquet" / "x").mkdir(parents=True)
    (tmp_path / "root" / "s" / "trials").write_bytes(b"kept")
    storage.write("s/episodes/none.a0.parquet", b"a")
    assert storage.names("s/trials") == []
    storage.write("s/trials/t0001-noise.json", b"b")
    assert storage.read("s/episodes/none.a0.parquet") == b"a"
    assert storage.read("s/trials/t0001-noise.json") == b"b"
    assert len(list((tmp_path / "root" / "s" / "episodes").glob(".none.a0.parquet.*.aside/x"))) == 1
    (kept,) = (tmp_path / "root" / "s").glob(".trials.*.aside")
    assert kept.read_bytes() == b"kept"
