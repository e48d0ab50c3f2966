"""What a study would run, and about how long: for ``--dry-run``, from stored costs or a short measurement."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mipoison.attacks import ATTACKS, by_cost
from mipoison.config import ConfigError
from mipoison.data.images import DataError
from mipoison.defenses import ANCHORS
from mipoison.storage.files import Storage
from study.records.reading import Unreadable, fetch
from study.records.reading.documents import MAX_JSON_BYTES, about_of
from study.records.store import STUDY_FILE, Records
from study.runtime.plain import visible_line
from study.search.objectives import chosen
from study.search.pruning import can_screen
from study.session.estimate import OVERHEAD, duration, seconds_per_step
from study.session.opening import choose_name, objective_names
from study.session.preconditions import check_could_be_written, check_extras, split_if_here, split_lines
from study.settings.study_settings import SCENES, StudySettings

DECODERS = {0: 0.3, 1: 1.0, 2: 5.0}
"""``Config.COST`` -> trainings of a decoder that an attacker is taken to cost, where no study tells."""
CONFIRMED = 0.3
"""Share of screened settings that is taken to be attacked by all attackers afterwards."""
WITHIN = 3
"""The estimate is meant to be right within this factor."""
MEASURED_COLUMNS = (
    "trial", "defense", "attack", "seed", "attempt", "status", "episode_id", "study",
    "seconds_attack", "seconds_evaluate", "seconds_prepare", "seconds_poison",
)  # fmt: skip


@dataclass(frozen=True)
class Costs:
    """Seconds of the parts of a study, in one process.

    Attributes:
        attackers: name -> seconds of one episode, training and evaluation. poisoning: of one setting on one
            seed: fitting the defense and releasing all vectors. scene: preparing one seed. source: where the
            numbers are from. timed: whether they were timed just now.
    """

    attackers: Mapping[str, float]
    poisoning: float
    scene: float
    source: str
    timed: bool = False


@dataclass(frozen=True)
class Counts:
    """How much is to run: seeds, settings, and episodes of each attacker (over all seeds)."""

    scenes: int
    settings: int
    episodes: Mapping[str, float]


def counts_of(settings: StudySettings, *, screens: bool, finished: int, anchors: int) -> Counts:
    """What is left to run.

    Args:
        screens: whether settings are screened. finished: settings that have records. anchors: anchors that
            have none yet.
    """
    left = max(0, settings.trials - finished)
    episodes = {}
    for name in by_cost(settings.attackers):
        share = 1.0 if not screens or ATTACKS[name].SCREENS else CONFIRMED
        episodes[name] = settings.seeds * (anchors + share * left)
    return Counts(settings.seeds, anchors + left, episodes)


def seconds_of(counts: Counts, costs: Costs, processes: int) -> float:
    """Seconds of the whole, when so many processes share it."""
    work = counts.scenes * costs.scene + counts.settings * counts.scenes * costs.poisoning
    work += sum(n * costs.attackers[name] for name, n in counts.episodes.items())
    return work / max(1, processes)


def stored_costs(settings: StudySettings, storage: Storage, names: list[str]) -> Costs | None:
    """Costs of the first study that has the same scenes and measured all attackers; None if none has."""
    wanted = settings.identity(*SCENES)
    for name in names:
        about = _about(storage, name)
        stored = about.get("settings") if about else None
        if not isinstance(stored, dict):
            continue
        if any(
            stored.get(k) != v for k, v in wanted.items() if k not in ("seeds", "first_seed", "victim_digest")
        ):
            continue
        rows = Records(storage, name).read(MEASURED_COLUMNS)
        rows = rows[rows["status"] == "ok"]
        seconds = (rows["seconds_attack"] + rows["seconds_evaluate"]).groupby(rows["attack"]).mean().dropna()
        if not set(settings.attackers) <= set(seconds.index):
            continue
        poisoning = (rows["seconds_prepare"] + rows["seconds_poison"]).groupby([rows["trial"], rows["seed"]])
        step = seconds_per_step(settings.scenes()[0])
        return Costs(
            attackers={str(k): float(v) for k, v in seconds.items()},
            poisoning=float(poisoning.first().mean()),
            scene=_scene_seconds(settings, step),
            source=f"the episodes of study {name}",
        )
    return None


def measured_costs(settings: StudySettings) -> Costs:
    """Costs from a few training steps of a decoder, timed on this device."""
    scene = settings.scenes()[0]
    step = seconds_per_step(scene)
    decoder = OVERHEAD * scene.decoder_steps * step
    return Costs(
        attackers={name: decoder * DECODERS[ATTACKS[name].COST] for name in settings.attackers},
        poisoning=decoder * 0.5,
        scene=_scene_seconds(settings, step),
        source=f"{step * 1e3:.1f} ms a training step of a decoder, timed here, and attackers' cost classes",
        timed=True,
    )


def _scene_seconds(settings: StudySettings, step: float) -> float:
    """Victim, two evaluators and two substitutes, each step taken to cost what a decoder's does."""
    scene = settings.scenes()[0]
    return step * (3 * scene.victim_steps + 2 * scene.decoder_steps)


def processes_of(settings: StudySettings) -> int:
    """How many processes of this machine work at once; on a cluster there may be more."""
    if settings.executor == "local":
        return 1
    fit = max(1, int((os.cpu_count() or 1) / settings.cpus_per_worker))
    at_once = fit if settings.concurrent is None else settings.concurrent * max(1, settings.workers or 1)
    return max(1, min(fit, at_once))


def plan_lines(settings: StudySettings) -> Iterator[str]:
    """The plan of a study, line by line. The images are read; nothing is trained, started or left written.

    Raises:
        ConfigError: an extra is missing; the storage cannot be written; the study exists and is not to be
            resumed, or is and does not; other settings than those of the study that is resumed; or bounds or
            a classifier that do not fit the images.
        DataError: the user's images cannot be used.
    """
    check_extras(settings)
    storage = Storage(settings.storage)
    check_could_be_written(storage)
    name = choose_name(settings, storage)
    stored = _about(storage, name)
    if settings.resume and stored is None:
        raise ConfigError(f"--resume: there is no study {name!r} in {settings.storage}")
    if stored is not None and not settings.resume:
        raise ConfigError(
            f"study {name!r} exists in {settings.storage}: choose another --name, or --resume it"
        )
    trials: set[str] = set()
    if stored is not None:
        settings = settings.continuing(stored["settings"])
        if changed := settings.changes(stored["settings"]):
            raise ConfigError(f"--resume with other settings than study {name!r} has: {'; '.join(changed)}")
        trials = {str(t) for t in Records(storage, name).read(("trial", *MEASURED_COLUMNS))["trial"].unique()}
    finished = len(trials - set(ANCHORS))
    objectives = objective_names(settings, stored)
    screens = settings.screen and can_screen(settings.attackers, chosen(objectives).values())
    counts = counts_of(settings, screens=screens, finished=finished, anchors=len(set(ANCHORS) - trials))
    scene = settings.scenes()[0]
    seeds = range(settings.first_seed, settings.first_seed + settings.seeds)
    yield f"study       {name}, {'resumed' if stored else 'new'}; records go to {storage.where(name)}"
    limit = "all images" if scene.limit is None else f"at most {scene.limit} training images a side"
    numbers = ", ".join(map(str, seeds))
    yield f"scenes      {scene.dataset}, auxiliary {scene.auxiliary}, seeds {numbers}; {limit}"
    split = split_if_here(settings)
    if isinstance(split, DataError):
        yield f"images      not read, the study will: {visible_line(split)}"
    else:
        for title, line in zip(("images", ""), split_lines(settings, split), strict=False):
            yield f"{title:<12}{visible_line(line)}"
    steps = f"{scene.victim_steps} steps"
    victim = f"victim and evaluators trained ({steps})"
    if settings.victim is not None:
        victim = f"victim {settings.victim} as it is, evaluators trained ({steps})"
    yield (
        f"models      scale {settings.scale}: {victim}, "
        f"decoders {scene.decoder_steps} steps of width {scene.decoder_width}"
    )
    yield (
        f"settings    {settings.trials} of {', '.join(settings.defenses)}"
        + (f" ({finished} finished)" if finished else "")
        + f", besides {', '.join(ANCHORS)}"
    )
    yield f"search      sampler {settings.sampler}; objectives {', '.join(objectives)}"
    ordered = by_cost(settings.attackers)
    yield f"attackers   {', '.join(f'{a} (cost {ATTACKS[a].COST})' for a in ordered)}"
    if screens:
        first = [a for a in ordered if ATTACKS[a].SCREENS]
        yield (
            f"screening   {', '.join(first)} judge every setting; the others those that may be best, taken "
            f"to be {CONFIRMED:.0%}"
        )
    else:
        yield "screening   none: all attackers judge every setting"
    processes = processes_of(settings)
    yield f"executor    {_executor(settings)}; {processes} at once on this machine"
    yield f"episodes    about {sum(counts.episodes.values()):.0f}"
    names = [name] if stored else []
    costs = stored_costs(settings, storage, names + _others(storage, name)) or measured_costs(settings)
    seconds = seconds_of(counts, costs, processes)
    yield f"time        about {duration(seconds)}, within a factor of {WITHIN}; from {costs.source}"
    if costs.timed and (busy := busy_line()):
        yield f"            {busy}"
    yield "nothing was started: leave --dry-run out to run it"


def busy_line() -> str | None:
    """What to know of a time measured on a machine with more to do than cores; None if it has not."""
    if not hasattr(os, "getloadavg"):  # Windows
        return None
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if load <= cores:
        return None
    return (
        f"the load is {load:.1f} on {cores} core{'' if cores == 1 else 's'}: others slow this measurement "
        "down, and the study while they run"
    )


def _executor(settings: StudySettings) -> str:
    if settings.executor == "local":
        return "local, in one process"
    where = settings.address or "a cluster of this machine, else a local Ray"
    gpus = f", {settings.gpus_per_worker:g} GPUs a worker" if settings.gpus_per_worker else ""
    return f"Ray ({where}), {settings.workers or 0} workers a trial{gpus}"


def _others(storage: Storage, name: str) -> list[str]:
    """Other studies in this storage, by name."""
    if not storage.local:
        return []  # listing a bucket may take long
    found = (
        (entry.name for entry in os.scandir(storage.root) if entry.is_dir())
        if os.path.isdir(storage.root)
        else ()
    )
    return sorted(
        other for other in found if other != name and os.path.isfile(f"{storage.root}/{other}/{STUDY_FILE}")
    )


def _about(storage: Storage, name: str) -> dict[str, Any] | None:
    try:
        data = fetch(storage, f"{name}/{STUDY_FILE}", MAX_JSON_BYTES)
        about = None if data is None else about_of(data)
    except Unreadable:
        return None
    return about if about is None or isinstance(about.get("settings"), dict) else None
