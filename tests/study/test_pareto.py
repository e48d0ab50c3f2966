"""The command line: bad input ends in one line before any work, and --help explains every setting."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mipoison.attacks import ATTACKS
from study import pareto
from study.search.sampler import SAMPLERS
from study.search.space import searchable
from study.session import driver
from study.settings.study_settings import GROUPS

ROOT = Path(__file__).parents[2]


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A storage folder; whatever starts work fails the test."""

    def no_work(*args: object) -> None:
        raise AssertionError("work was started")

    monkeypatch.setattr(driver, "run_study", no_work)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "storage"


def usage_error(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Exit code 2, nothing on stdout, one line on stderr: that line."""
    try:
        code = pareto.main(["--executor", "local", *arguments])
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    assert err.strip().count("\n") == 0, err
    return err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--dataset", "cifar11"], ["'cifar11'", "digits", "mnist", "cifar10", "faces:PATH"]),
        (["--dataset", "faces"], ["'faces'", "faces:PATH"]),
        (["--defenses", "lpa", "lpaa"], ["'lpaa'", "did you mean 'lpa'", *searchable()]),
        (["--defenses", "lpa,lpaa"], ["'lpaa'", *searchable()]),
        (["--defenses", "none"], ["no defense chosen", *searchable()]),
        (["--attackers", "pasive"], ["'pasive'", "did you mean 'passive'", *ATTACKS]),
        (["--sampler", "grid"], ["'grid'", *SAMPLERS]),
        (["--trials", "-1"], ["trials = -1", "at least 0"]),
        (["--seeds", "0"], ["seeds = 0", "at least 1"]),
        (["--first-seed", "-1"], ["first_seed = -1", "at least 0"]),
        (["--limit", "0"], ["limit = 0", "at least 10"]),
        (["--workers", "-2"], ["workers = -2", "at least 0"]),
        (["--concurrent", "0"], ["concurrent = 0", "at least 1"]),
        (["--threads", "0"], ["threads = 0", "at least 1"]),
        (["--victim-steps", "0"], ["victim_steps = 0", "at least 1"]),
        (["--decoder-steps", "-5"], ["decoder_steps = -5", "at least 1"]),
        (["--decoder-width", "0"], ["decoder_width = 0", "at least 1"]),
        (["--cpus-per-worker", "0"], ["cpus_per_worker = 0.0", "above 0"]),
        (["--gpus-per-worker", "-1"], ["gpus_per_worker = -1.0", "at least 0"]),
        (["--max-accuracy-drop", "2"], ["max_accuracy_drop = 2.0", "between 0 and 1"]),
        (["--min-top5-agreement", "90"], ["min_top5_agreement = 90.0", "between 0 and 1", "leave it out"]),
        (["--name", "../x"], ["'../x'", "letters, digits"]),
        (["--name", ""], ["''", "letters, digits"]),
    ],
)
def test_bad_values(
    storage: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: list[str]
) -> None:
    error = usage_error(capsys, "--storage", str(storage), *arguments)
    for text in said:
        assert text in error
    assert not storage.exists()


@pytest.mark.parametrize(
    "arguments", [["--scale", "huge"], ["--auxiliary", "x"], ["--trials", "many"], ["--no-such-option"]]
)
def test_what_the_parser_refuses(storage: Path, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        pareto.main(["--storage", str(storage), *arguments])
    assert stop.value.code == 2
    assert not storage.exists()


# ---------------------------------------------------------------- storage and data


def test_storage_below_a_file(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    storage.write_text("a file")
    for path in (storage, storage / "below"):
        assert str(path) in usage_error(capsys, "--storage", str(path))
    assert storage.read_text() == "a file"


def test_storage_of_an_unknown_kind(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "nonsense://bucket" in usage_error(capsys, "--storage", "nonsense://bucket/x")


def faces(folder: Path, identities: int, images: int = 8) -> Path:
    rng = np.random.default_rng(0)
    for i in range(identities):
        (folder / f"person{i}").mkdir(parents=True)
        for k in range(images):
            pixels = rng.integers(0, 256, (64, 64), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"person{i}" / f"{k}.png")
    return folder


def test_a_folder_of_faces_is_opened(storage: Path, tmp_path: Path) -> None:
    """The control: without the faults of the tests below, work begins."""
    folder = faces(tmp_path / "people", 4)
    arguments = ["--executor", "local", "--storage", str(storage), "--dataset", f"faces:{folder}"]
    with pytest.raises(AssertionError, match="work was started"):
        pareto.main(arguments)


@pytest.mark.parametrize("identities", [0, 1, 3])
def test_too_few_identities(
    storage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], identities: int
) -> None:
    (tmp_path / "people").mkdir()
    folder = faces(tmp_path / "people", identities)
    error = usage_error(capsys, "--storage", str(storage), "--dataset", f"faces:{folder}")
    assert "need at least" in error
    assert f"{identities} identities" in error
    assert list(storage.rglob("*.json")) == []


def test_too_few_images(storage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = faces(tmp_path / "people", 4)
    for path in list((folder / "person2").iterdir())[1:]:
        path.unlink()
    assert "person2" in usage_error(capsys, "--storage", str(storage), "--dataset", f"faces:{folder}")


@pytest.mark.parametrize("content", [b"", b"not an image", "half"])
def test_an_unreadable_image_is_named(
    storage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | str
) -> None:
    folder = faces(tmp_path / "people", 4)
    path = folder / "person1" / "3.png"
    path.write_bytes(path.read_bytes()[:1000] if isinstance(content, str) else content)
    error = usage_error(capsys, "--storage", str(storage), "--dataset", f"faces:{folder}")
    assert "1 of 32 image files" in error
    assert "person1/3.png (unreadable)" in error


def test_data_that_is_not_there(storage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = tmp_path / "nowhere"
    error = usage_error(capsys, "--storage", str(storage), "--dataset", f"faces:{missing}")
    assert f"{missing} does not exist" in error


def test_markup_in_a_name_is_printed_as_it_is(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "'[red]x[/red]'" in usage_error(capsys, "--storage", str(storage), "--name", "[red]x[/red]")


# ---------------------------------------------------------------- help


def test_help_names_every_option_with_its_default() -> None:
    environment = os.environ | {"COLUMNS": "100"}
    done = subprocess.run(
        [sys.executable, str(ROOT / "study" / "pareto.py"), "--help"],
        capture_output=True, text=True, timeout=120, env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0
    assert done.stderr == ""
    text = " ".join(done.stdout.replace("│", " ").split())
    text = text[text.index("show this help message") :]  # examples name options, too
    # Each option with what follows it, up to the next.
    fields = [f for classes in GROUPS.values() for cls in classes for f in dataclasses.fields(cls)]
    names = [f"--{f.name.replace('_', '-')}" for f in fields]
    starts = [text.index(f" {name} ") if f" {name} " in text else text.index(f" {name},") for name in names]
    assert starts == sorted(starts)
    for field, begin, end in zip(fields, starts, [*starts[1:], len(text)], strict=True):
        default = field.default
        shown = " ".join(default) if isinstance(default, tuple) else str(default)
        told = "" if default in (None, ()) else f"(default: {shown})"
        assert told in text[begin:end]
        assert len(text[begin:end]) > 40  # explained
    assert "default: None" not in text
    assert "{None" not in text
    for title in GROUPS:
        assert f" {title} options " in text
    for name in (*searchable(), *ATTACKS, *SAMPLERS, "fashion-mnist", "faces:PATH"):
        assert name in text


# ---------------------------------------------------------------- a plan, and a study's own settings


def test_a_dry_run_starts_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pareto.main(["--dry-run", "--trials", "5", "--storage", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    assert "5 of rounding, noise, codebook, lpa, lfp" in shown
    assert "nothing was started" in shown
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("no_report")
def test_a_resumed_study_goes_on_with_its_own_settings(
    small_study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two seeds, three defenses, 100 images: nothing of it is said again."""
    root = Path(shutil.copytree(small_study.parent, tmp_path / "root"))
    named = ["--storage", str(root), "--executor", "local", "--trials", "3"]
    assert pareto.main(["--resume", "small", "--dry-run", *named]) == 0
    shown = capsys.readouterr().out
    assert "seeds 0, 1; at most 100 training images" in shown
    assert "3 of rounding, tail-noise, lpa (3 finished)" in shown
    assert pareto.main(["--resume", "small", *named, "--seeds", "3"]) == 2
    assert "seeds: 2 -> 3" in capsys.readouterr().err
    before = sorted(p.name for p in (root / "small" / "episodes").iterdir())
    assert pareto.main(["--resume", "small", *named]) == 0
    assert sorted(p.name for p in (root / "small" / "episodes").iterdir()) == before
