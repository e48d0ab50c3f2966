"""The privacy label of one setting: what it guarantees, what was measured, what it costs, how to check it.

A label is plain JSON (``schemas/label.json``), for a release folder or an endpoint, and half a page of
Markdown for a model card.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from mipoison.config import ConfigError, choose
from mipoison.defenses import DEFENSES, LABEL_ONLY, UNDEFENDED
from mipoison.scene import TEST_SEEN
from mipoison.storage.files import Storage
from study.analysis.attacked import Attacked, Attacks
from study.analysis.identification import CHANCE, IDENTIFIED
from study.records.curves import FACES
from study.records.finished import StoredStudy
from study.records.flat import finite, knobs_of
from study.reports.answers import answers_of, answers_text
from study.reports.cells import data_name, setting_name, test_seen
from study.reports.commands import rerun_command
from study.reports.findings import Findings
from study.reports.leakage import EXCESS, WORST_ATTACKER, WORST_POOL
from study.reports.raised import doubts, in_words, not_to_be_read
from study.reports.rounding import upper_limit, with_limits
from study.reports.summary import MORE_NEEDED, above_zero, shown_to_leak
from study.reports.summary import choose as recommend
from study.runtime.plain import markdown_text, visible_line
from study.trial.rerun import has_own_victim

SCHEMA = Path(__file__).parent / "schemas" / "label.json"
VERSION = 2
"""Of the label's format: it changes with every change of the schema that an older reader would not expect."""
JSON_NAME, MARKDOWN_NAME = "label.json", "label.md"
UTILITY = (
    "accuracy_drop", "confidence_distortion", "label_agreement", "rank_correlation", "tail_rank_correlation",
    "top2_agreement", "top5_agreement", "log_loss", "clean_log_loss", "brier_score", "clean_brier_score",
    "ece", "clean_ece",
)  # fmt: skip
"""Columns of a ``utility_table`` that a label has."""
UNSHOWN = f", not shown to leak itself: {MORE_NEEDED}"
WORDS = {
    "certified": "no attacker whatsoever gains more than the margin over the label alone",
    "safe": "these attackers do not gain more than the margin, at 95 % confidence; others may",
    "leaks": "a gain over the label alone is shown",
    "undecided": "neither a leak nor its absence is shown",
}
"""Verdict -> what it says."""


def recommended(found: Findings) -> str | None:
    """The trial that the study's answer deploys; label-only if nothing else is certified or safe."""
    table = found.judged
    deploy = recommend(table).deploy
    if deploy is not None:
        return str(deploy["trial"])
    floor = table[(table["trial"] == LABEL_ONLY) & table["feasible"].fillna(False).astype(bool)]
    return LABEL_ONLY if len(floor) else None


def trial_of(study: StoredStudy, setting: str) -> str:
    """The full name of a trial, of which the part before the first dash is enough (``t0012``).

    Raises:
        ConfigError: there is no such trial.
    """
    trials = sorted({str(trial) for trial in study.episodes["trial"]})
    starting = [trial for trial in trials if trial.partition("-")[0] == setting]
    return starting[0] if setting not in trials and len(starting) == 1 else choose("trial", setting, trials)


def label(
    study: StoredStudy, setting: str | None = None, *, like: str | None = None, found: Findings | None = None
) -> dict[str, Any]:
    """The privacy label of one setting of a study, as plain JSON values of the committed schema.

    All leakage is of the worst case over the study's attackers, as means over seeds. Errors are mean squared
    errors in [0, 1]; excess leakage is a share of label-only's error; intervals are 95 % Student-t intervals
    over seeds, except those of excess leakage, whose ends are one-sided 95 % limits. A value is null where
    the records have none.

    Args:
        setting: a trial, or its name up to the first dash; None for the setting that the study recommends.
        like: the study's path or address in the command; None for the name of its folder, which also
            stands for an absolute path: that is of one machine, and a label is published.
        found: the study's findings, if they are already computed.

    Raises:
        ConfigError: there is no such trial, or none to recommend.
    """
    found = Findings.of(study) if found is None else found
    best = recommended(found)
    if setting is None and best is None:
        raise ConfigError("the study recommends no setting: name one")
    trial = trial_of(study, setting) if setting is not None else str(best)
    rows = study.episodes[study.episodes["trial"] == trial]
    row = found.judged.set_index("trial", drop=False).loc[trial]
    more = found.with_leakage.set_index("trial").loc[trial]
    verdict = None if pd.isna(row["verdict"]) else str(row["verdict"])
    return {
        "label_version": VERSION,
        "study": visible_line(study.name),
        "trial": visible_line(trial),
        "recommended": trial == best,
        "data": _data(rows),
        "victim": _victim(rows),
        "setting": _setting(row),
        "verdict": verdict,
        "margin": float(found.margin),
        "certificate": _certificate(row),
        "answers": answers_of(row),
        "measured": _measured(row, more, rows, found),
        "utility": _utility(found, trial),
        "checks_raised": doubts(rows),
        "not_to_be_read": not_to_be_read(rows),
        "seeds": [int(seed) for seed in _attacked(rows).seeds],
        "versions": _texts(rows, "versions"),
        "devices": _texts(rows, "device"),
        "command": rerun_command(study, _place(study, like), trial),
    }


def _place(study: StoredStudy, like: str | None) -> str:
    """The study's path or address in the label's command."""
    return study.folder if like is None or Path(like).expanduser().is_absolute() else like


def _attacked(rows: pd.DataFrame) -> Attacked:
    """The attacks on the setting whose records these are."""
    return Attacks(rows).of(range(len(rows)))


def _texts(rows: pd.DataFrame, column: str) -> list[str]:
    return sorted({visible_line(v) for v in rows[column].dropna()}) if column in rows else []


def _one(rows: pd.DataFrame, column: str) -> Any:
    """The one value of a column, as a plain number; None if it is missing or varies."""
    values = rows[column].dropna().unique() if column in rows else []
    return values[0].item() if len(values) == 1 and hasattr(values[0], "item") else None


def _data(rows: pd.DataFrame) -> dict[str, Any]:
    return {
        "dataset": ", ".join(map(data_name, _texts(rows, "dataset"))) or None,
        "attacker_images": ", ".join(_texts(rows, "auxiliary")) or None,
        "classes": _one(rows, "n_classes"),
        "training_images_at_most": _one(rows, "scene.limit"),
        "private_images": {name: _one(rows, f"pool_size{ending}") for name, ending in FACES.items()},
        "test_may_be_seen": test_seen(rows),
    }


def _victim(rows: pd.DataFrame) -> dict[str, Any]:
    own = has_own_victim(rows)
    accuracy = pd.to_numeric(rows["model_accuracy"], errors="coerce").mean()
    return {
        "kind": "own" if own else "trained by the study",
        "digest": ", ".join(_texts(rows, "scene.victim_digest")) or None,
        "training_steps": None if own else _one(rows, "scene.victim_steps"),
        "accuracy": finite(accuracy),
    }


def _setting(row: Mapping[str, Any]) -> dict[str, Any]:
    defense = str(row["defense"])
    known = knobs_of(row) if defense in DEFENSES else {}
    return {
        "defense": visible_line(defense),
        "knobs": {k: visible_line(v) if isinstance(v, str) else v for k, v in known.items()},
        "text": visible_line(setting_name(row)),
    }


def _certificate(row: Mapping[str, Any]) -> dict[str, Any] | None:
    """What no attacker exceeds, on the worst seed and pool; None without an exact certificate."""
    excess = finite(row["certified_excess_worst"])
    if excess is None:
        return None
    named = [finite(row[f"certified_identification{pool}"]) for pool in FACES.values()]
    known = [value for value in named if value is not None]
    return {"excess_leakage_at_most": excess, "identification_at_most": max(known, default=None)}


def _interval(row: Mapping[str, Any], name: str) -> dict[str, Any]:
    ends = {"value": name, "low": f"{name}_low", "high": f"{name}_high"}
    return {key: finite(row[column]) for key, column in ends.items()}


def _measured(
    row: Mapping[str, Any], more: Mapping[str, Any], rows: pd.DataFrame, found: Findings
) -> dict[str, Any]:
    none = found.judged[found.judged["trial"] == UNDEFENDED]
    return {
        "excess_leakage": {
            "worst": _interval(more, EXCESS)
            | {"attacker": _attacker(more[WORST_ATTACKER]), "pool": _attacker(more[WORST_POOL])},
            **{name: _interval(row, f"suite_excess{pool}") for name, pool in FACES.items()},
            "undefended": finite(none["suite_excess_worst"].iloc[0]) if len(none) else None,
            "undefended_leaks": undefended_leaks(found),
        },
        "reconstruction_error": _interval(row, "worst_reconstruction_error")
        | {"attacker": _attacker(row["worst_reconstruction_error_attacker"])},
        "identification_auc": _interval(more, IDENTIFIED)
        | {"attacker": _attacker(more[f"{IDENTIFIED}_attacker"]), "chance": CHANCE},
        "estimated_limit": _interval(row, "estimated_limit"),
        "attackers": [visible_line(name) for name in _attacked(rows).succeeded],
        "screened_only": bool(row["cut"]) if not pd.isna(row["cut"]) else False,
    }


def undefended_leaks(found: Findings) -> bool | None:
    """Whether the undefended setting is shown to leak; None without a verdict on it."""
    rows = found.verdicts[found.verdicts["trial"] == UNDEFENDED]
    return shown_to_leak(rows.iloc[0]) if len(rows) else None


def _attacker(name: Any) -> str | None:
    return None if pd.isna(name) else visible_line(name)


def _utility(found: Findings, trial: str) -> dict[str, float | None]:
    row = found.utility.set_index("trial").loc[trial]
    floor = found.utility[found.utility["trial"] == LABEL_ONLY]["confidence_distortion"]
    values = {name: finite(row[name]) for name in UTILITY}
    most = finite(floor.iloc[0]) if len(floor) else None
    own = values["confidence_distortion"]
    share = own / most if own is not None and most else None
    return values | {"distortion_share_of_label_only": share}


def label_markdown(made: Mapping[str, Any]) -> str:
    """Half a page for a model card, of a :func:`label`."""
    measured, data, utility = made["measured"], made["data"], made["utility"]
    excess, auc = measured["excess_leakage"], measured["identification_auc"]
    verdict = made["verdict"] or "no verdict"
    means = WORDS.get(verdict, "its leakage was not measured beside label-only")
    certificate = made["certificate"]
    guarantee = "none: another attacker may read more than was measured"
    if certificate is not None:
        guarantee = f"excess leakage at most {upper_limit(certificate['excess_leakage_at_most'])}"
        if certificate["identification_at_most"] is not None:
            guarantee += f", right image named at most {upper_limit(certificate['identification_at_most'])}"
        guarantee += ", for every attacker"
    known = {words: utility[name] for name, words in UTILITY_WORDS.items() if utility[name] is not None}
    costs = ", ".join(f"{words} {_text(value)}" for words, value in known.items())
    limit = data["training_images_at_most"]
    why = above_zero(excess["worst"]["high"]) if made["setting"]["defense"] == LABEL_ONLY else ""
    unread = f"; {in_words(made['not_to_be_read'])} is not to be read" if made["not_to_be_read"] else ""
    label_only = made["setting"]["defense"] == LABEL_ONLY
    answers = None if label_only else answers_text(made["answers"])
    lines = {
        "Verdict": f"**{verdict}** ({means}; margin {made['margin']:g})",
        "Guarantee": guarantee,
        **({} if answers is None else {"Answers": answers}),
        "Measured excess leakage": f"{_with_limits(excess['worst'])} of label-only's error (undefended "
        f"{_text(excess['undefended'])}{UNSHOWN if excess['undefended_leaks'] is False else ''}); "
        f"{markdown_text(worst_attacker(measured))}{why}",
        "Identification AUC": f"{_with_ends(auc)} (chance {auc['chance']:g})",
        "Costs": costs or "not measured",
        "Data": f"{markdown_text(data['dataset'] or 'not known')}, "
        f"attacker's images: {markdown_text(data['attacker_images'] or 'not known')}"
        + (f", at most {limit} training images a side" if limit is not None else "")
        + (f"; test images: {TEST_SEEN}" if data.get("test_may_be_seen") else ""),
        "Victim": f"{made['victim']['kind']}, accuracy {_text(made['victim']['accuracy'])}",
        "Checks raised": (", ".join(made["checks_raised"]) or "none that puts the verdict in doubt") + unread,
        "Seeds": ", ".join(map(str, made["seeds"])),
        "Versions": markdown_text("; ".join(made["versions"])),
    }
    rows = "\n".join(f"| {name} | {text} |" for name, text in lines.items())
    command = made["command"].replace("`", "'")
    return (
        f"## Privacy label: {markdown_text(made['setting']['text'])}\n\n"
        f"Study {markdown_text(made['study'])}, setting {markdown_text(made['trial'])}. "
        "Excess leakage is the share by which the best attacker's error lies below the best label-only "
        "error, on private train or test images, whichever has the larger upper limit; its limits are "
        "one-sided, 95 %; identification has a 95 % Student-t interval over seeds. Measured "
        "numbers are lower bounds: they speak of the attackers that were run.\n\n"
        f"| | |\n|---|---|\n{rows}\n\nMeasure it again: `{command}`\n"
    )


def worst_attacker(measured: Mapping[str, Any]) -> str:
    """Of a label's ``measured``: whose excess leakage it gives, of how many attackers that ran."""
    worst, n = measured["excess_leakage"]["worst"], len(measured["attackers"])
    named = "" if worst["attacker"] is None else f" ({worst['attacker']}, {worst['pool']} images)"
    part = "; only a part of the attackers ran (screened)" if measured["screened_only"] else ""
    return f"by the worst of {n} attacker{'' if n == 1 else 's'}{named}{part}"


UTILITY_WORDS = {
    "confidence_distortion": "distortion",
    "accuracy_drop": "accuracy lost",
    "rank_correlation": "rank correlation",
    "top2_agreement": "top-2 agreement",
    "top5_agreement": "top-5 agreement",
    "log_loss": "log loss",
    "clean_log_loss": "clean log loss",
    "brier_score": "Brier score",
    "clean_brier_score": "clean Brier score",
}
"""What the Markdown says of utility."""


def _text(value: float | None) -> str:
    return "not known" if value is None else f"{value:.3g}"


def _with_limits(interval: Mapping[str, Any]) -> str:
    ends = (interval[key] for key in ("value", "low", "high"))
    return with_limits(*ends, missing="not known")


def _with_ends(interval: Mapping[str, Any]) -> str:
    if interval["value"] is None:
        return "not known"
    low, high = interval["low"], interval["high"]
    ends = "" if low is None or high is None else f" [{low:z.3f}, {high:z.3f}]"
    return f"{interval['value']:z.3f}{ends}"


def label_files(made: Mapping[str, Any]) -> dict[str, bytes]:
    """Name of a file -> its content: ``label.json`` and ``label.md``."""
    text = json.dumps(made, indent=2, allow_nan=False) + "\n"
    return {JSON_NAME: text.encode(), MARKDOWN_NAME: label_markdown(made).encode()}


def write_labels(made: Mapping[str, Any], storage: Storage, place: str) -> None:
    """Write the two files of a label; ``place`` is put before their names."""
    for name, content in label_files(made).items():
        storage.write(f"{place}{name}", content)
