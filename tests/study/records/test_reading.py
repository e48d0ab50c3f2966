"""Damaged files of every kind are left out with a warning: no traceback, and a study still resumes."""

from __future__ import annotations

import contextlib
import functools
import io
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from planted import JSON_TEXTS, archives, started_texts, tables_like
from rich.console import Console

from mipoison import deployment
from mipoison.config import ConfigError
from mipoison.storage.artifacts import ArtifactStore
from mipoison.storage.files import Storage
from study import render, report
from study.analysis.frontier import frontier_table
from study.records.constraints import Constraints
from study.records.finished import load, small_parquet
from study.records.reading import Unreadable, announce_left_out
from study.records.reading.documents import about_to_show, parse_json, started_of
from study.records.reading.episodes import compact_of, episodes_of
from study.records.reading.pictures import archive_of, episode_of, pictures_of
from study.records.reading.tables import cosine_of, vectors_of
from study.records.schema import episode_schema
from study.reports.html import Source, VectorOptions, build_page
from study.reports.html import vectors as vectors_module
from study.reports.markdown import markdown
from study.session.opening import open_study
from study.settings.study_settings import StudySettings
from study.trial.run import read_anchors, relate_to_anchors

RESULTS = Path(render.__file__).parent / "results" / "reproduction" / "mnist"
SETTINGS: dict[str, Any] = {
    "executor": "local", "trials": 4, "seeds": 2, "victim_steps": 40, "decoder_steps": 20, "limit": 100,
    "attackers": ("ridge", "passive", "label-only"), "defenses": ("rounding", "tail-noise", "lpa"),
    "resume": True,
}  # fmt: skip


def first_trial(folder: Path) -> Path:
    return next(path for path in sorted((folder / "episodes").iterdir()) if path.name.startswith("t0001"))


def read(folder: Path) -> None:
    """Read a study as report.py and render.py do, without drawing."""
    source = Source.of(load(folder), "x")
    markdown(source.found)
    build_page([source], VectorOptions(None))


def resume(folder: Path) -> None:
    """Resume a study as pareto.py does, up to the next trial's start, and end it."""
    settings = StudySettings(**SETTINGS, storage=str(folder.parent), name=folder.name)
    with contextlib.ExitStack() as held:
        study = open_study(settings, Console(file=io.StringIO()), held)
        study.progress()
        assert study.ask() is not None
        rows = [row for rows in study.finished.values() for row in rows][:3]
        relate_to_anchors(rows, read_anchors(study.records))
        frontier_table(study.records.read(), Constraints())


def shapes(folder: Path, rng: random.Random) -> Iterator[tuple[str, bytes, Callable[[bytes], object], str]]:
    """(name in the study, bytes, the function that validates them, what they are)."""
    for data in JSON_TEXTS:
        yield "study.json", data, lambda d: about_to_show(d, "study.json"), repr(data[:40])
        yield "trials/t0009-rounding.json", data, started_of, repr(data[:40])
    for data in started_texts():
        yield "trials/t0009-rounding.json", data, started_of, repr(data[:80])
    trial, schema = first_trial(folder), episode_schema()
    for path in (trial, folder / "episodes" / "label-only.a0.parquet"):
        judge = functools.partial(episodes_of, trial=path.name.split(".")[0], schema=schema)
        for how, data in tables_like(path.read_bytes(), rng):
            yield f"episodes/{path.name}", data, judge, how
    small = small_parquet(load(folder).episodes.dropna(axis=1, how="all"))
    for how, data in tables_like(small, rng):
        yield "episodes.parquet", data, functools.partial(compact_of, schema=schema, name="x"), how
    for name, judge in (("vectors", vectors_of), ("pictures", pictures_of), ("cosine", cosine_of)):
        for how, data in tables_like((RESULTS / f"{name}.parquet").read_bytes(), rng):
            yield f"{name}.parquet", data, judge, how
    for how, data in archives(rng):
        yield f"pictures/{trial.name.split('.')[0]}.npz", data, archive_of, how


@pytest.fixture
def copied(small_study: Path, tmp_path: Path) -> Path:
    shutil.copytree(small_study, tmp_path / "root" / "small")
    return tmp_path / "root" / "small"


def test_each_kind_of_file_is_judged_by_one_function(small_study: Path) -> None:
    """For hundreds of contents the function returns a value or raises Unreadable with one line."""
    accepted, refused = 0, list[tuple[str, str, str]]()
    for name, data, judge, how in shapes(small_study, random.Random(0)):
        try:
            judge(data)
        except Unreadable as error:
            refused.append((name, how, str(error)))
        else:
            accepted += 1
    assert [r for r in refused if not r[2].isprintable()] == []  # one line without control characters
    assert len(refused) > 300
    assert accepted > 30


@pytest.fixture
def remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's projections and released vectors, which take most of the time, are made once for one input.

    What is altered here reaches them as another setting, or as other vectors, and is computed as ever.
    """
    deployed: dict[Any, Any] = {}
    projected: dict[Any, Any] = {}

    def deploy(scene: Any, defense: str, config: Any) -> Any:
        key = (scene.config, defense, config)
        if key not in deployed:
            deployed[key] = deployment.deploy(scene, defense, config)
        return deployed[key]

    project = vectors_module.project

    def project_once(vectors: Any, progress: Any) -> Any:
        key = tuple((name, rows.shape, rows.dtype.str, rows.tobytes()) for name, rows in vectors.items())
        if key not in projected:
            projected[key] = project(vectors, progress)
        return projected[key]

    monkeypatch.setattr(vectors_module, "deploy", deploy)
    monkeypatch.setattr(vectors_module, "project", project_once)


@pytest.mark.timeout(580)
@pytest.mark.parametrize(("most_fine", "most_bad"), [(1, 0), pytest.param(6, 2, marks=pytest.mark.long)])
def test_what_is_accepted_is_read_and_resumed_and_the_rest_is_left_out(
    copied: Path, capsys: pytest.CaptureFixture[str], remembered: None, most_fine: int, most_bad: int
) -> None:
    """Whole programs on a sample of the contents: all kinds of files, accepted contents first."""
    rng = random.Random(1)
    by_kind: dict[tuple[str, bool], list[tuple[str, bytes, str]]] = {}
    for name, data, judge, how in shapes(copied, rng):
        try:
            judge(data)
            fine = True
        except Unreadable:
            fine = False
        by_kind.setdefault((name, fine), []).append((name, data, how))
    stopped: list[tuple[str, str, str, str]] = []
    known = set(copied.rglob("*/*"))
    for (name, fine), cases in sorted(by_kind.items()):
        for _, data, how in rng.sample(cases, min(len(cases), most_fine if fine else most_bad)):
            place = copied / name
            before = place.read_bytes() if place.exists() else None
            place.write_bytes(data)
            resumed = name.startswith(("episodes/", "trials/")) or name == "study.json"
            for reader in (read, resume) if resumed else (read,):
                said: list[str] = []
                try:
                    with announce_left_out(said.append):
                        reader(copied)
                except ConfigError as error:
                    stopped.append((name, how, reader.__name__, str(error)))
                if (
                    not fine
                    and reader is read
                    and name.endswith((".parquet", ".npz"))
                    and "cosine" not in name
                ):
                    assert any("is left out" in line for line in said), (name, how)
            for made in set(copied.rglob("*/*")) - known:  # files that the resumed study wrote or moved
                made.unlink()
            place.unlink(missing_ok=True)
            if before is not None:
                place.write_bytes(before)
    capsys.readouterr()
    assert [s for s in stopped if s[0] != "study.json" or not s[3].isprintable()] == []


def test_a_trial_that_cannot_be_resumed_is_said_and_the_study_goes_on(copied: Path) -> None:
    (copied / "trials" / "t0007-lpa.json").write_text('{"defense": "nope", "knobs": {}, "attempt": 0}')
    (copied / "trials" / "t0008-noise.json").write_text('{"defense": "noise", "knobs": {}, "attempt": 0}')
    sink = io.StringIO()
    settings = StudySettings(**SETTINGS, storage=str(copied.parent), name="small")
    study = open_study(settings, Console(file=sink, width=500))
    assert study.unfinished == []
    assert "t0007-lpa.json is left out: unknown defense 'nope'" in sink.getvalue()
    assert (
        "t0008-noise.json is left out: a setting of noise that this study does not search" in sink.getvalue()
    )
    assert next(study.numbers) == 9


def test_another_scene_s_trial_is_left_out_of_the_report(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = first_trial(copied)
    table = pq.read_table(path)
    rows = [row | {"dataset": "mnist", "scene.dataset": "mnist"} for row in table.to_pylist()]
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)
    assert report.main([str(copied), "--vectors", "no"]) == 0
    assert "another scene than the study's (dataset)" in capsys.readouterr().err
    assert path.name.split(".")[0] not in set(load(copied).episodes["trial"])


def test_an_artifact_of_another_shape_is_made_anew(tmp_path: Path) -> None:
    import torch

    store = ArtifactStore(Storage(tmp_path))
    good = {"a": torch.zeros(2, 3)}
    for bad in ({"b": torch.zeros(2, 3)}, {"a": torch.zeros(3)}, {"a": torch.zeros(2, 3).long()}, {}):
        store._store("x", {}, b"")
        store.tensors("x", {}, lambda bad=bad: bad)
        assert store.tensors("x", {}, lambda: good, good)["a"].shape == (2, 3)


def test_finished_episodes_of_another_shape_run_again() -> None:
    picture = [[[[0]]]]
    good = {"record": {"status": "ok", "seed": 0, "attack_accuracy": 1.0}, "picture": picture}
    assert episode_of(good, episode_schema())[0]["seed"] == 0
    bad: list[Any] = [None, [], 3, {}, {"record": []}, good | {"picture": "x"}, good | {"picture": [[300]]}]
    for change in ({"seed": "x"}, {"seed": True}, {"nope": 1}, {"attack_accuracy": []}, {"status": "failed"}):
        bad.append(good | {"record": good["record"] | change})
    for value in bad:
        with pytest.raises(Unreadable):
            episode_of(value, episode_schema())


def test_json_is_of_finite_numbers_and_bounded() -> None:
    assert parse_json(b'{"a": [1, 2.5, null, "x"]}') == {"a": [1, 2.5, None, "x"]}
    deep = (b"[" * 100_000, b'{"a":' * 40 + b"1" + b"}" * 40)
    for data in (b"NaN", b"1e999", b'{"a": 1, "a": 1}', b'"\\ud800"', b"\xff", *deep):
        with pytest.raises(Unreadable):
            parse_json(data)
