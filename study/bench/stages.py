"""Measures overheads of a trial: the artifact cache, peak memory per stage, and Ray's start of a trial."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch

from mipoison.attacks import ATTACKS
from mipoison.defenses import DEFENSES
from mipoison.deployment import deploy, release
from mipoison.episode import EpisodeConfig, attack_and_measure, peak_memory_mb
from mipoison.scene import SceneConfig, prepare, scaled
from mipoison.storage.artifacts import ArtifactStore
from mipoison.storage.files import Storage
from study.bench.measurement import Measurement, against, seconds_of

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 400


def _scene(quick: bool) -> SceneConfig:
    if quick:
        return scaled(
            "digits", "quick", seed=0, limit=100, victim_steps=30, decoder_steps=20, decoder_width=4
        )
    return scaled("digits", "quick", seed=0)


def cache(*, quick: bool = False) -> Iterator[Measurement]:
    """Seconds to prepare a scene and fit LPA on it, with an empty artifact store and with a filled one."""
    config, knobs = _scene(quick), DEFENSES["lpa"]()

    def trial(root: str) -> ArtifactStore:
        store = ArtifactStore(Storage(root))
        deploy(prepare(config, store), "lpa", knobs)
        return store

    with tempfile.TemporaryDirectory() as folder:
        empty, full = [], []
        made = 0
        for i in range(2 if quick else 3):
            root = f"{folder}/{i}"
            empty.append(seconds_of(lambda r=root: trial(r)))  # type: ignore[misc]
            stores: list[ArtifactStore] = []
            full.append(seconds_of(lambda r=root, s=stores: s.append(trial(r))))  # type: ignore[misc]
            made += stores[0].made
    common: dict[str, Any] = {
        "benchmark": "artefact cache",
        "unit": "s",
        "repeats": len(full),
        "conditions": f"digits, {config.victim_steps} and {config.decoder_steps} training steps; LPA fitted",
        "note": f"Victims, evaluators and substitutes trained by the second trial: {made}.",
    }
    yield Measurement(case="first trial (empty store)", value=statistics.median(empty), **common)
    second = Measurement(case="second trial (store has them)", value=statistics.median(full), **common)
    yield against(second, "first trial (empty store)", statistics.median(empty))


_STAGES = """
import json, sys
from study.bench.stages import stages_here
print("PEAKS" + json.dumps(stages_here(sys.argv[1] == "quick")))
"""


def memory(*, quick: bool = False) -> Iterator[Measurement]:
    """Peak memory of each stage of an episode, in a fresh process (with a GPU: the GPU's memory)."""
    output = run([sys.executable, "-c", _STAGES, "quick" if quick else "full"])
    peaks = json.loads(output.rpartition("PEAKS")[2])
    for stage, mib in peaks.items():
        yield Measurement(
            benchmark="memory per stage",
            case=stage,
            value=mib,
            unit="MiB",
            conditions=f"digits, quick scale, lpa against the passive attacker; {peak_source()}",
        )


def peak_source() -> str:
    """What the measured peak memory is, as text."""
    return "peak of the GPU's memory" if torch.cuda.is_available() else "peak resident set, imports included"


def stages_here(quick: bool) -> dict[str, float]:
    """MiB at the peak of each stage, in this process."""
    peaks = {"imports": peak_memory_mb()}
    with tempfile.TemporaryDirectory() as folder:
        scene: Any = None

        def measured(stage: str, action: Callable[[], Any]) -> Any:
            _reset_peak()
            value = action()
            peaks[stage] = peak_memory_mb()
            return value

        config = _scene(quick)
        scene = measured("prepare", lambda: prepare(config, ArtifactStore(Storage(folder))))
        defense = DEFENSES["lpa"]()
        deployment = measured("fit defense", lambda: deploy(scene, "lpa", defense))
        released = measured("poison", lambda: release(deployment))
        episode = EpisodeConfig(
            scene=config,
            defense="lpa",
            defense_config=defense,
            attack="passive",
            attack_config=ATTACKS["passive"],
        )
        measured("attack and evaluate", lambda: attack_and_measure(episode, deployment, released))
    return peaks


def _reset_peak() -> None:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    else:
        # "5" resets the peak (proc(5)); on other systems the peaks of earlier stages remain.
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            return


def overhead(*, quick: bool = False) -> Iterator[Measurement]:
    """Overhead of a trial: its wall time beyond its work, inside a Tune trial and as a Ray Train run."""
    sizes = ["--limit", "100", "--victim-steps", "30", "--decoder-steps", "20", "--decoder-width", "4"]
    trials = 2 if quick else 6
    for workers in (0,) if quick else (0, 1):
        with tempfile.TemporaryDirectory(prefix="mipb", dir="/tmp") as folder:
            command = [
                *(sys.executable, str(ROOT / "study" / "pareto.py"), "--storage", folder, "--name", "s"),
                *("--trials", str(trials), "--seeds", "2", "--workers", str(workers), "--concurrent", "1"),
                *("--attackers", "passive", "label-only", "--defenses", "noise", *(sizes if quick else [])),
            ]
            run(command, TMPDIR=folder, HOME=folder, MIPOISON_RAY_TMP=f"{folder}/r")
            yield from _overhead_rows(Path(folder) / "s", workers)


def _overhead_rows(study: Path, workers: int) -> Iterator[Measurement]:
    """Overheads from the files' times: a trial begins with its description and ends with its records."""
    walls, shares = [], []
    for records in sorted((study / "episodes").glob("t*.parquet")):
        begun = study / "trials" / f"{records.name.split('.a')[0]}.json"
        wall = records.stat().st_mtime - begun.stat().st_mtime
        table = pq.read_table(records).to_pandas()
        # A seed's attackers share preparation and poisoning.
        once = table.groupby("seed")[["seconds_prepare", "seconds_poison"]].first().sum().sum()
        work = once + table[["seconds_attack", "seconds_evaluate"]].sum().sum()
        walls.append(wall)
        shares.append(max(0.0, 1 - work / wall))
    how = "inside the Tune trial" if workers == 0 else f"as a Ray Train run of {workers} worker"
    # The first trial of an actor imports torch and reads its scenes.
    for name, picked in (("first trial", slice(0, 1)), ("later trials", slice(1, None))):
        if not walls[picked]:
            continue
        wall, share = statistics.median(walls[picked]), statistics.median(shares[picked])
        yield Measurement(
            benchmark="trial overhead (Ray Tune, Ray Train)",
            case=f"{name}, {how}",
            value=wall * share,
            unit="s",
            repeats=len(walls[picked]),
            conditions="digits, 2 seeds, 2 attackers, a trial at a time; from a trial's start to its records",
            note=f"{name}, {how}: {share:.0%} of a trial of {wall:.2f} s.",
        )


def run(command: list[str], **environment: str) -> str:
    """Run a command in this checkout; return its stdout, or raise RuntimeError with the end of its stderr."""
    env = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"} | environment
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=TIMEOUT_S, cwd=ROOT)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:3])} ended with {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout
