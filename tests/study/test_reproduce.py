"""The paper beside ours: every row measured by an episode, tables and figures from the records alone."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from mipoison.attacks import ATTACKS
from mipoison.attacks.decoder import Decoder, DecoderConfig
from mipoison.config import ConfigError
from mipoison.defenses import DEFENSES
from mipoison.episode import EpisodeConfig
from mipoison.metrics.leakage import ERROR_PERCENTS, error_percentiles
from mipoison.protocols import ThreatModel
from mipoison.scene import scaled
from mipoison.service import MeteredOracle
from mipoison.storage.files import Storage, StorageError
from study import reproduce
from study.paper import experiments
from study.paper.compact import write_compact
from study.paper.comparisons import verdict
from study.paper.diagnostics import COSINE, VECTORS, Traced
from study.paper.experiments import FACES, FIGURES, NUMBERS, TABLES, PaperRow, planned, table_rows, trials_of
from study.paper.figures import PICTURES
from study.paper.measured import Measured, load
from study.paper.run import missing, records_for
from study.paper.tables import table_frame, table_markdown
from study.trial.failure import LostError

RESULTS = Path(__file__).parents[2] / "study" / "results"
TINY = "--dataset facescrub --faces digits --executor local --seeds 3"
TINY += " --limit 120 --victim-steps 30 --decoder-steps 16"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("reproduce")
    arguments = f"{TINY} --table III --figure 3 --storage {root}".split()
    assert reproduce.main(arguments) == 0
    return root


def test_table_v_has_sizes_of_its_own() -> None:
    small = reproduce.Arguments(limit=1000, decoder_steps=100).settings(experiments.DIFFUSION)
    assert (small.dataset, small.limit, small.decoder_steps, small.decoder_width) == ("mnist", 300, 100, 8)
    assert reproduce.Arguments(scale="full").settings(experiments.DIFFUSION).limit is None


def test_every_number_of_the_paper_has_a_row_and_every_row_an_episode() -> None:
    with NUMBERS.open(newline="") as file:
        lines = list(csv.DictReader(file))
    rows = [row for table in TABLES for row in table_rows(table)]
    assert sum(not row.ours for row in rows) == len(lines) == 69
    for row in rows:
        config = DEFENSES[row.defense](**dict(row.knobs))
        EpisodeConfig(
            scene=scaled("digits", "quick"),
            defense=row.defense,
            defense_config=config,
            attack=row.attack,
            attack_config=ATTACKS[row.attack],
        )
    told = [tuple(row.paper) for row in rows if not row.ours]
    for line, paper in zip(lines, told, strict=True):
        assert dict(paper).get("reconstruction_error") == (
            float(line["reconstruction_error"]) if line["reconstruction_error"] else None
        )


def test_rows_measure_what_the_paper_names() -> None:
    fourth = [
        (r.defense, r.attack, dict(r.knobs).get("substitute_extra_blocks")) for r in table_rows("IV")[:6]
    ]
    assert fourth == [
        ("none", "passive", None),
        ("lpa", "passive", 0),
        ("none", "mismatched-architecture", None),
        ("lpa", "mismatched-architecture", 0),
        ("lpa", "passive", 1),
        ("lpa", "mismatched-architecture", 1),
    ]
    assert [r.reference for r in table_rows("IV")[:6]] == [None, 0, None, 2, 0, 2]
    assert [r.reference for r in table_rows("VII")[:10]] == [2, 2, None, 2, 2, 7, 7, None, 7, 7]
    assert [dict(r.knobs).get("budget") for r in table_rows("VI")[:6]] == [None, 0.002, 0.02, 0.2, 0.5, 1.0]
    third = [(r.attack, dict(r.knobs).get("substitute_data")) for r in table_rows("III")]
    assert third[1] == ("data-D1", "D1")
    assert third[4] == ("mismatched-data", "D1")


def test_trials_are_shared_between_tables_and_attackers_gathered() -> None:
    trials = trials_of(planned(TABLES, FIGURES), "mnist")
    assert {"label-only", "none"} <= set(trials)
    assert set(trials["none"][2]) == {"passive", "noise", "softmax"}
    apart = trials_of(planned(TABLES, FIGURES), experiments.DIFFUSION)
    assert set(apart["none"][2]) == {"passive", "diffusion-0", "diffusion-0.5", "diffusion-2"}
    lpa = table_rows("I")[3].trial
    assert table_rows("VII")[2].trial == table_rows("IX")[1].trial == table_rows("X")[0].trial == lpa
    assert set(trials[lpa][2]) == {"passive", "noise", "softmax"}


def test_tables_say_what_the_records_say(run: Path) -> None:
    episodes = pd.concat(pd.read_parquet(p) for p in (run / "reproduction" / "digits" / "episodes").iterdir())
    frame = pd.read_csv(run / "reproduction" / "table_III.csv")
    assert len(frame) == 6
    assert (frame["seeds"] == 3).all()
    for line, row in zip(frame.to_dict("records"), table_rows("III"), strict=True):
        mine = episodes[(episodes["trial"] == row.trial) & (episodes["attack"] == row.attack)]
        assert line["ours.reconstruction_error_unit"] == pytest.approx(
            mine["reconstruction_error"].mean(), rel=1e-5
        )
        assert line["ours.cycle_accuracy"] == pytest.approx(mine["cycle_accuracy"].mean(), rel=1e-5)
        assert line["paper.attack_accuracy"] == pytest.approx(dict(row.paper)["attack_accuracy"])
    text = (run / "reproduction" / "table_III.md").read_text()
    assert "facescrub (digits)" in text
    assert "half of MNIST's classes 5-9" in text
    assert "3 seeds (0, 1, 2)" in text
    assert "undefended attacker" in text
    assert "not run" not in text


def test_figures_are_drawn_and_the_rest_is_not_run_again(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run / "reproduction"
    assert reproduce.main(f"{TINY} --render --figure 8 10 --storage {run}".split()) == 0
    for name in ("figure_3_digits.png", "proposition_1_digits.png", "figure_8.png", "figure_10.png"):
        assert (folder / name).stat().st_size > 20_000, name
    before = {p.name: p.stat().st_mtime_ns for p in (folder / "digits" / "episodes").iterdir()}
    assert reproduce.main(f"{TINY} --table III --figure 3 --resume --storage {run}".split()) == 0
    assert "nothing left to run" in capsys.readouterr().out
    assert before == {p.name: p.stat().st_mtime_ns for p in (folder / "digits" / "episodes").iterdir()}


def test_a_compact_copy_renders_the_same_tables(run: Path, tmp_path: Path) -> None:
    found = load(str(run), "digits")
    asked = f"{TINY} --render --table I --figure 5 7 --storage {run} --compact {tmp_path}"
    assert reproduce.main(asked.split()) == 0
    again = load(str(tmp_path), "digits")
    kept = {p.name for p in (tmp_path / "reproduction" / "digits").iterdir()}
    assert kept == {"episodes.parquet", "study.json", VECTORS, COSINE}  # faces: no pictures
    write_compact({"mnist": found[FACES]}, tmp_path / "others")
    pictures = pd.read_parquet(tmp_path / "others" / "reproduction" / "digits" / PICTURES)
    assert {"truth", "passive"} <= set(pictures["attack"])
    assert len(pictures["pixels"][0]) == np.prod(pictures["shape"][0])
    for table in ("I", "III"):
        assert table_markdown(table, again) == table_markdown(table, found)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "nothing to do"),
        ("--table XI", "table"),
        ("--figure 9", "figure"),
        ("--table V --dataset cifar10", "not in what was asked for"),
        ("--table I --dataset mars", "dataset"),
        ("--table I --render --storage {root}/empty", "no records"),
        ("--table I --seeds 0 --storage {root}/new", "seeds"),
    ],
)
def test_bad_input_is_refused_in_a_line(
    arguments: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert reproduce.main(arguments.format(root=tmp_path).split()) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_records_are_neither_overwritten_nor_mixed(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert reproduce.main(f"{TINY} --table II --storage {run}".split()) == 2
    assert "--resume" in capsys.readouterr().err
    other = TINY.replace("--decoder-steps 16", "--decoder-steps 21")
    assert reproduce.main(f"{other} --table II --resume --storage {run}".split()) == 2
    assert "decoder_steps: 16 -> 21" in capsys.readouterr().err


@pytest.mark.parametrize("failure", [LostError("the anchors were lost 4 times"), StorageError("disk full")])
def test_what_ends_a_run_is_said_in_a_line(
    failure: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*given: object) -> None:
        raise failure

    monkeypatch.setattr(reproduce, "run_rows", fails)
    assert reproduce.main(f"{TINY} --table II --storage {tmp_path}".split()) == 1
    error = capsys.readouterr().err
    assert error == f"error: {failure}; finished episodes are kept. Continue with --resume\n"


def test_attackers_of_equal_cost_are_in_one_order(tmp_path: Path) -> None:
    """A set's order would differ from process to process, and with it the order of records and training."""
    rows = [PaperRow("I", "mnist", "none", (), name) for name in ("raw", "passive", "noise", "ridge")]
    todo = missing(records_for(str(tmp_path), "mnist"), rows, "mnist")
    assert todo["none"][2] == ("ridge", "passive", "raw", "noise")


def _made(errors: dict[str, list[float]], tmp_path: Path) -> Measured:
    rows = [
        {
            "trial": trial,
            "attack": "passive",
            "status": "ok",
            "seed": s,
            "reconstruction_error": v,
        }
        for trial, values in errors.items()
        for s, v in enumerate(values)
    ]
    return Measured("mnist", {}, pd.DataFrame(rows), Storage(tmp_path), "mnist")


def test_orderings_need_an_interval_without_zero(tmp_path: Path) -> None:
    def row(defense: str, paper: float) -> PaperRow:
        return PaperRow("I", "mnist", defense, (), "passive", paper=(("reconstruction_error", paper),))

    none, mad = row("none", 0.5), row("mad", 0.6)
    for values, expected in (
        ([1.1, 2.11, 3.09], "holds"),
        ([0.9, 1.91, 2.89], "reversed"),
        ([1.5, 1.2, 3.1], "no difference shown"),
        ([1.1, 2.1], "too few seeds"),
    ):
        measured = _made({none.trial: [1.0, 2.0, 3.0], mad.trial: values}, tmp_path)
        assert verdict(mad, none, "reconstruction_error", measured) == expected
    assert verdict(row("pgd", 0.6), none, "reconstruction_error", measured) == "not run"


def test_a_row_that_nothing_measures_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = NUMBERS.read_text().replace("I,mnist,lfp,tcnn-mse", "I,mnist,unheard-of,tcnn-mse")
    (tmp_path / "numbers.csv").write_text(text)
    monkeypatch.setattr(experiments, "NUMBERS", tmp_path / "numbers.csv")
    experiments.table_rows.cache_clear()
    with pytest.raises(ConfigError, match="unheard-of"):
        experiments.table_rows("I")
    monkeypatch.undo()
    experiments.table_rows.cache_clear()


def test_percentiles_are_numpys() -> None:
    errors = torch.rand(137, generator=torch.Generator().manual_seed(0))
    found = error_percentiles(errors)
    expected = np.quantile(errors.double().numpy(), np.array(ERROR_PERCENTS) / 100)
    np.testing.assert_allclose(list(found.values()), expected, rtol=1e-12)


def test_tracing_does_not_disturb_the_attack_and_measures_the_angle() -> None:
    config = DecoderConfig(steps=20, batch=8, width=4, lr=1e-3)
    rng = torch.Generator().manual_seed(3)
    c = torch.softmax(torch.randn(40, 5, generator=rng), 1)
    x = torch.rand(40, 1, 16, 16, generator=rng)
    known = ThreatModel("none", {}, (1, 16, 16))
    device = torch.device("cpu")

    def fitted(attack: Decoder) -> Decoder:
        attack.fit(MeteredOracle(lambda _: c, 5), x, known=known, rng=torch.Generator().manual_seed(1))
        return attack

    plain = fitted(Decoder(config, device))
    traced = Traced(config, (c, x), device)  # "private" data that are its own: its step descends on them
    fitted(traced)
    for a, b in zip(plain.model.state_dict().values(), traced.model.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert [p["step"] for p in traced.trace] == list(range(20))
    assert all(p["cosine"] == pytest.approx(-1, abs=1e-6) for p in traced.trace)


def test_diagnostics_hold_what_they_say(run: Path) -> None:
    folder = run / "reproduction" / "digits"
    vectors, cosine = pd.read_parquet(folder / VECTORS), pd.read_parquet(folder / COSINE)
    assert list(vectors["defense"].unique()) == list(cosine["defense"].unique())
    scores = vectors.drop(columns="defense").to_numpy()
    np.testing.assert_allclose(scores.sum(1), 1, atol=1e-5)
    assert cosine["cosine"].between(-1 - 1e-6, 1 + 1e-6).all()
    assert cosine["private_loss"].gt(0).all()


@pytest.mark.skipif(not (RESULTS / "reproduction").exists(), reason="no committed reproduction")
@pytest.mark.parametrize("table", TABLES)
def test_committed_tables_are_what_the_committed_records_give(table: str) -> None:
    found = load(str(RESULTS), experiments.STAND_IN)
    folder = RESULTS / "reproduction"
    assert table_markdown(table, found) == (folder / f"table_{table}.md").read_text()
    written = table_frame(table, found).to_csv(index=False, float_format="%.6g", lineterminator="\n")
    assert written == (folder / f"table_{table}.csv").read_text()
    assert FACES in written or table in ("V", "VII", "IX")
