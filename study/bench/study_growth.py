"""Measures what a growing study costs its driver and its storage: seconds per trial, files, requests.

Real records, those of ``study/results/digits-search``, are copied under new names into studies of the given
sizes in a temporary folder. Nothing is trained.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from mipoison.defenses import ANCHORS
from mipoison.storage.files import Storage
from study.executors.local import LocalExecutor
from study.records.finished import StoredStudy, load, write_compact
from study.records.schema import episode_schema
from study.records.store import Records
from study.runtime.progress import Progress
from study.search.space import starting_points
from study.session.callbacks import LiveLine
from study.session.loop import TrialLoop
from study.session.opening import open_study
from study.session.study import Study
from study.settings.study_settings import StudySettings
from study.trial.run import Outcome
from study.trial.spec import TrialSpec

SOURCE = Path(__file__).parents[1] / "results" / "digits-search"
REPEATS = 7


@dataclass(frozen=True)
class Cost:
    """The costs of a study of one size. Seconds are CPU time, which other load affects little, and medians.

    Attributes:
        trials: finished trials. episodes: all, including the anchors'.
        resume_s: time to resume the study, reading all records.
        ask_s, done_s: the driver's time for one more trial before and after it runs: suggestion, files,
            records, live line, metrics.
        requests: reads, writes and listings of the storage by the driver for that trial.
        driver_kb: the driver's memory per trial, from its growth while resuming.
        small_s, small_mb: time to read all episodes from one Parquet file per trial, and the files' size.
        compact_s, compact_mb: the same for a compact copy in one file.
    """

    trials: int
    episodes: int
    resume_s: float
    ask_s: float
    done_s: float
    requests: dict[str, float]
    driver_kb: float
    small_s: float
    small_mb: float
    compact_s: float
    compact_mb: float


class Template:
    """Real records to copy: those of the anchors and of one trial."""

    def __init__(self) -> None:
        study = load(SOURCE)
        self.settings: dict[str, Any] = study.about["settings"]
        schema = episode_schema()
        frame = study.episodes.reindex(columns=schema.names)
        self.table = pa.Table.from_pandas(frame, schema=schema, preserve_index=False)
        names = self.table.column("trial").to_pylist()
        full = Counter(names)[ANCHORS[0]]
        self.trial = next(n for n in names if "noise" in n and Counter(names)[n] == full)

    def bytes(self, trial: str, attempt: int = 0, source: str | None = None) -> bytes:
        """A Parquet file for a trial, with the records of ``source`` (default: the template's trial)."""
        rows = self.table.filter(pa.compute.equal(self.table["trial"], source or self.trial))
        new = {"trial": trial, "study": "s", "attempt": attempt}
        for name, value in new.items():
            at = rows.schema.get_field_index(name)
            rows = rows.set_column(
                at, rows.schema.field(at), pa.array([value] * len(rows), rows.schema.field(at).type)
            )
        ids = pa.array([f"{trial}-{i}" for i in range(len(rows))])
        at = rows.schema.get_field_index("episode_id")
        rows = rows.set_column(at, rows.schema.field(at), ids)
        sink = io.BytesIO()
        pq.write_table(rows, sink)
        return sink.getvalue()

    def fill(self, folder: Path, trials: int, seed: int = 0) -> None:
        """Write a study with this number of finished trials of the noise defense."""
        rng = random.Random(seed)
        (folder / "s" / "episodes").mkdir(parents=True)
        (folder / "s" / "trials").mkdir()
        for name in ANCHORS:
            (folder / "s" / "episodes" / f"{name}.a0.parquet").write_bytes(self.bytes(name, 0, name))
        for i in range(1, trials + 1):
            name = f"t{i:04d}-noise"
            (folder / "s" / "episodes" / f"{name}.a0.parquet").write_bytes(self.bytes(name))
            about = {
                "defense": "noise",
                "knobs": {"budget": rng.uniform(0.01, 1.0), "randomness": "keyed"},
                "attempt": 0,
            }
            (folder / "s" / "trials" / f"{name}.json").write_text(json.dumps(about))
        about = {"settings": StudySettings(**self.settings).identity()}
        (folder / "s" / "study.json").write_text(json.dumps(about))


def measure(template: Template, trials: int) -> Cost:
    """Measure the costs of a study with this number of trials."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        template.fill(folder, trials)
        settings = StudySettings(
            **template.settings | {"storage": name, "name": "s", "resume": True, "trials": 10**6}
        )
        memory, began = _rss_kb(), time.process_time()
        with contextlib.ExitStack() as held:
            study = open_study(settings, Console(file=io.StringIO()), held)
            study.progress()
            resume = time.process_time() - began
            memory = _rss_kb() - memory
            line = LiveLine(Progress(Console(file=io.StringIO())), shared_classes=True)
            line.on_trials_started(study.progress(), 1)
            loop = TrialLoop(LocalExecutor(), [line], study.lease)
            asks, dones = [], []
            for _ in starting_points(study.search.families):  # after them the sampler suggests
                _one(loop, study, template, folder)
            with counted() as calls:
                for _ in range(REPEATS):
                    ask, done = _one(loop, study, template, folder)
                    asks.append(ask)
                    dones.append(done)
        small, compact = folder / "s" / "episodes", folder / "compact"
        began = time.process_time()
        episodes = Records(Storage(name), "s").read()
        small_s = time.process_time() - began
        write_compact(StoredStudy("s", {"settings": {}}, episodes, None, Storage(name), "s"), compact)
        began = time.process_time()
        again = pq.read_table(compact / "episodes.parquet").to_pandas()
        compact_s = time.process_time() - began
        assert len(again) == len(episodes)
        return Cost(
            trials=trials,
            episodes=len(episodes),
            resume_s=resume,
            ask_s=statistics.median(asks),
            done_s=statistics.median(dones),
            requests={what: n / REPEATS for what, n in sorted(calls.items())},
            driver_kb=memory / trials,
            small_s=small_s,
            small_mb=sum(p.stat().st_size for p in small.iterdir()) / 2**20,
            compact_s=compact_s,
            compact_mb=(compact / "episodes.parquet").stat().st_size / 2**20,
        )


def _one(loop: TrialLoop, study: Study, template: Template, folder: Path) -> tuple[float, float]:
    """Seconds of asking for a trial and of telling its outcome; its records are written in between."""
    began = time.process_time()
    spec = loop.ask(study)
    asked = time.process_time() - began
    assert isinstance(spec, TrialSpec)
    path = folder / "s" / "episodes" / f"{spec.trial}.a{spec.attempt}.parquet"
    path.write_bytes(template.bytes(spec.trial, spec.attempt))
    outcome: Outcome = {
        "confidence_distortion": 0.5,
        "worst_attack_accuracy": 0.9,
        "worst_reconstruction_error": 0.1,
        "worst_identification_auc": 0.6,
        "accuracy_drop": 0.0,
    }
    began = time.process_time()
    loop.tell(study, spec, outcome)
    return asked, time.process_time() - began


@contextlib.contextmanager
def counted() -> Iterator[Counter[str]]:
    """Count this thread's calls of the storage: read, write, list."""
    calls: Counter[str] = Counter()
    here = threading.get_ident()
    kept = {name: getattr(Storage, name) for name in ("read", "write", "_files")}

    def counting(name: str) -> Any:
        def call(self: Storage, *given: Any) -> Any:
            if threading.get_ident() == here:  # another thread renews the lease
                calls[name.replace("_files", "list")] += 1
            return kept[name](self, *given)

        return call

    try:
        for name in kept:
            setattr(Storage, name, counting(name))
        yield calls
    finally:
        for name, function in kept.items():
            setattr(Storage, name, function)


def _rss_kb() -> float:
    """Resident memory of this process in kB; 0 without /proc."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1024
