"""The paper's tables as data: each row with its numbers and the episode that measures it, and our controls.

``numbers.csv`` holds every number of Tables I-X. Knobs that the paper does not state (budgets, ratios) are
chosen here so that the distortions agree with those that it reports.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mipoison.config import ConfigError
from mipoison.data.datasets import parse_name
from study.settings.registered import PASSIVE, attackers

NUMBERS = Path(__file__).parent / "numbers.csv"
TABLES = ("I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X")
FIGURES = ("3", "4", "5", "6", "7", "8", "10")
FACES = "facescrub"
STAND_IN = "lfw"
"""FaceScrub cannot be redistributed: its rows run on LFW unless the user names their own folder."""
DATASETS = ("mnist", "fashion-mnist", "cifar10", FACES)
DIFFUSION = "mnist-diffusion"
"""The run of Table V: MNIST with smaller sizes, since a diffusion attacker costs as much as many decoders."""
RUNS = (*DATASETS, DIFFUSION)
"""Names of the runs: one per data set of the paper, and Table V's. Each has a folder of records."""
DIFFUSION_AT_MOST = {"limit": 300, "decoder_width": 8, "decoder_steps": 200}
"""Table V's sizes at scale quick."""

BUDGETS = {"mnist": 1.5e-4, "fashion-mnist": 2.5e-4, "cifar10": 2.5e-4, FACES: 4e-3}
"""l2 budgets of LPA, inferred from the distortions of Table I (the paper states none)."""
MID_BETAS = (0.001, 0.01, 0.1)
"""Figure 8's sweep of MID; Table VI's budgets are the sweep of LPA."""
FIGURE_TABLES = {"3": (), "4": ("I",), "5": ("IV",), "6": ("V",), "7": ("VI",), "8": ("VI",), "10": ("I",)}
"""Tables whose episodes a figure is drawn from; figure 8 adds :func:`sweep`."""
MEASURES = ("model_accuracy", "confidence_distortion", "attack_accuracy", "reconstruction_error")


@dataclass(frozen=True)
class PaperRow:
    """A row of one of the paper's tables, or one of our controls beside it.

    Attributes:
        table, dataset: as the paper names them. defense, knobs, attack: the episode that measures the row.
        setting: the paper's words for it. paper: the paper's numbers (accuracies as shares); empty for a
            control.
        reference: index in the table of the row to compare with; None for a reference itself.
    """

    table: str
    dataset: str
    defense: str
    knobs: tuple[tuple[str, Any], ...]
    attack: str
    setting: str = ""
    paper: tuple[tuple[str, float], ...] = ()
    note: str = ""
    reference: int | None = None

    @property
    def run(self) -> str:
        """The run (one of RUNS) that measures the row."""
        return DIFFUSION if self.table == "V" else self.dataset

    @property
    def ours(self) -> bool:
        """Whether the row is a control that the paper lacks."""
        return not self.paper and not self.note

    @property
    def trial(self) -> str:
        """Name of the trial that measures the row: the defense and a digest of its knobs."""
        return trial_name(self.defense, dict(self.knobs))


def trial_name(defense: str, knobs: dict[str, Any]) -> str:
    """``<defense>-<digest of the configuration>``; for anchors the plain name."""
    if defense in ("none", "label-only"):
        return defense
    from mipoison.defenses import DEFENSES

    return f"{defense}-{DEFENSES[defense](**knobs).digest()[:8]}"


def _number(text: str, scale: float = 1.0) -> float | None:
    return float(text) * scale if text else None


def _lpa(dataset: str, **more: Any) -> dict[str, Any]:
    return {"budget": BUDGETS[dataset], "substitute_data": "all", **more}


DESCENT = {"search": "descent"}
"""LPA as the paper has it."""


_ATTACK_WORDS = {
    "tcnn-mse": PASSIVE,
    "tcnn-psnr": "mismatched-loss",
    "tcnn-5": PASSIVE,
    "tcnn-6": "mismatched-architecture",
    "time": PASSIVE,
    "guidance 0": "diffusion-0",
    "guidance 0.5": "diffusion-0.5",
    "guidance 2.0": "diffusion-2",
    "attacker data D1": "data-D1",
    "attacker data D2": "mismatched-data",
    "attacker transform: none added": PASSIVE,
    "attacker transform: random noise": "noise",
    "attacker transform: softmax": "softmax",
}
_DEFENDER_WORDS: dict[str, dict[str, Any]] = {
    "defender loss mse": {"loss": "mse"},
    "defender loss psnr": {"loss": "psnr"},
    "defender data D1": {"substitute_data": "D1"},
    "defender data D2": {"substitute_data": "D2"},
    "substitute tcnn-5": {"substitute_extra_blocks": 0},
    "substitute tcnn-6": {"substitute_extra_blocks": 1},
}


def _knobs(defense: str, dataset: str, setting: list[str]) -> dict[str, Any]:
    """The knobs of a row: budgets by its dataset, others from the paper's words."""
    if defense in ("none", "label-only"):
        return {}
    if defense == "lfp":
        return {"ratio": 0.05, "substitute_data": "all", "picks": "request"}  # as the paper has it
    if defense == "mid":
        return {"beta": 0.001 if dataset == "cifar10" else 0.01}
    if defense == "pgd":
        return _lpa(dataset) | {"budget": 0.1 if dataset == "mnist" else 0.0012}
    if defense == "poi-mse":
        return _lpa(dataset) | DESCENT | {"budget": 1.5e-4 if dataset == "mnist" else 0.0012}
    if defense == "advexa":
        return _lpa(dataset) | {"budget": 0.055 if dataset == "mnist" else 0.0012}
    if defense == "onepara":
        return {"epsilon": 1.0}
    if defense == "lpa-amortised":
        return {"budget": 0.002, "substitute_data": "all"}
    if defense != "lpa":
        raise ConfigError(
            f"numbers.csv names the defense {defense!r}: add its knobs to study/paper/experiments.py"
        )
    knobs = _lpa(dataset) | DESCENT
    for word in setting:
        knobs |= _DEFENDER_WORDS.get(word, {})
        if word.startswith("l2 budget"):
            # Without the label step: the paper's accuracy falls to 56 % at budget 1.0, which LPA's cannot.
            knobs |= {"budget": float(word.removeprefix("l2 budget ")), "keep_label": False}
    return knobs


def _row(line: dict[str, str]) -> PaperRow:
    setting = [word.strip() for word in line["setting"].split(";") if word.strip()]
    defense = {"lpa-vae": "lpa-amortised"}.get(line["defense"], line["defense"])
    words = [line["attacker"], *setting]
    attacks = [_ATTACK_WORDS[word] for word in words if word in _ATTACK_WORDS]
    if not attacks:
        raise ConfigError(
            f"numbers.csv: no attacker is assigned to {words}; add it to study/paper/experiments.py"
        )
    paper = {
        "model_accuracy": _number(line["model_accuracy_pct"], 0.01),
        "confidence_distortion": _number(line["confidence_distortion"]),
        "attack_accuracy": _number(line["attack_accuracy_pct"], 0.01),
        "reconstruction_error": _number(line["reconstruction_error"]),
    }
    return PaperRow(
        table=line["table"],
        dataset=line["dataset"],
        defense=defense,
        knobs=tuple(sorted(_knobs(defense, line["dataset"], setting).items())),
        attack=attacks[-1],
        setting=line["setting"],
        paper=tuple((k, v) for k, v in paper.items() if v is not None),
        note=line["note"],
    )


def _controls(table: str) -> list[PaperRow]:
    """Our controls of a table: noise of the same budget, rounding, the label alone."""

    def row(dataset: str, defense: str, attack: str = PASSIVE, setting: str = "", **knobs: Any) -> PaperRow:
        return PaperRow(table, dataset, defense, tuple(sorted(knobs.items())), attack, setting)

    if table == "I":
        return [
            control
            for dataset in DATASETS
            for control in (
                row(dataset, "noise", setting="matched noise", budget=BUDGETS[dataset]),
                row(dataset, "rounding", setting="3 decimals", decimals=3),
                row(dataset, "label-only", setting="the floor"),
            )
        ]
    if table == "IV":
        names = {"tcnn-5": PASSIVE, "tcnn-6": "mismatched-architecture"}
        return [
            row(FACES, "noise", attack, f"matched noise; {name}", budget=BUDGETS[FACES])
            for name, attack in names.items()
        ]
    if table == "V":
        return [row("mnist", "noise", "diffusion-0", "matched noise; guidance 0", budget=BUDGETS["mnist"])]
    if table == "VI":
        return [
            row(FACES, "noise", setting=f"matched noise; l2 budget {b:g}", budget=b)
            for b in (0.002, 0.02, 0.2, 0.5)
        ]
    if table == "VII":
        datasets = ("mnist", "fashion-mnist")
        return [row(d, "noise", setting="matched noise of lpa", budget=BUDGETS[d]) for d in datasets]
    if table == "IX":
        return [row("mnist", "noise", setting="matched noise of lpa-vae", budget=0.002)]
    if table == "X":
        return [
            row(dataset, "none", attack, f"undefended; attacker transform: {word}")
            for dataset in ("mnist", FACES)
            for attack, word in ((PASSIVE, "none added"), ("noise", "random noise"), ("softmax", "softmax"))
        ]
    return []


def _same_group(table: str, a: PaperRow, b: PaperRow) -> bool:
    """Whether b may be a's reference: same data and, except in Table X, same attacker."""
    return a.dataset == b.dataset and (a.attack == b.attack or table == "X")


def _reference(table: str, rows: list[PaperRow], row: PaperRow) -> int | None:
    """Index of the row to compare with: undefended; LPA in VII; LPA under the plain attacker in X."""
    base = {"VII": "lpa", "X": "lpa"}.get(table, "none")
    for place, other in enumerate(rows):
        wanted = other.defense == base and _same_group(table, row, other)
        if table == "X":
            wanted = wanted and other.attack == PASSIVE
        if wanted:
            return None if other is row else place
    return None


@functools.cache
def table_rows(table: str) -> tuple[PaperRow, ...]:
    """A table's rows in the paper's order, then our controls.

    Raises:
        ConfigError: no such table, or a row of ``numbers.csv`` that no experiment measures.
    """
    if table not in TABLES:
        raise ConfigError(f"table {table!r}: choose from {', '.join(TABLES)}")
    with NUMBERS.open(newline="") as file:
        rows = [_row(line) for line in csv.DictReader(file) if line["table"] == table]
    rows += _controls(table)
    return tuple(dataclasses.replace(row, reference=_reference(table, rows, row)) for row in rows)


def sweep() -> tuple[PaperRow, ...]:
    """Figure 8's settings beyond Table VI: MID with other weights."""
    return tuple(
        PaperRow("8", FACES, "mid", (("beta", beta),), PASSIVE, f"mid beta={beta:g}") for beta in MID_BETAS
    )


def planned(tables: Iterable[str], figures: Iterable[str] = ()) -> list[PaperRow]:
    """All rows that the tables and figures need, each table once."""
    wanted = dict.fromkeys([*tables, *(t for f in figures for t in FIGURE_TABLES[f])])
    rows = [row for table in wanted for row in table_rows(table)]
    return rows + (list(sweep()) if "8" in figures else [])


def runs_on(run: str, faces: str = STAND_IN) -> str:
    """The data set of a run."""
    return {FACES: faces, DIFFUSION: "mnist"}.get(run, run)


def folder_of(run: str, faces: str = STAND_IN) -> str:
    """Folder of a run's records: the data set's name, without the path of a user's folder."""
    return run if run == DIFFUSION else parse_name(runs_on(run, faces))[0]


def trials_of(rows: Iterable[PaperRow], run: str) -> dict[str, tuple[str, dict[str, Any], tuple[str, ...]]]:
    """Trial -> (defense, knobs, attackers) of a run. Both anchors are always included."""
    found: dict[str, tuple[str, dict[str, Any], list[str]]] = {
        "label-only": ("label-only", {}, [PASSIVE]),
        "none": ("none", {}, [PASSIVE]),
    }
    for row in rows:
        if row.run == run:
            attacks = found.setdefault(row.trial, (row.defense, dict(row.knobs), []))[2]
            if row.attack not in attacks:
                attacks.append(row.attack)
    order = attackers()
    return {t: (d, k, tuple(sorted(a, key=order.index))) for t, (d, k, a) in found.items()}
