"""The report page: it says what the records say, no record's text is markup, nothing is fetched."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mipoison.metrics import checks_table
from mipoison.metrics.leakage import ERROR_PERCENTS, PERCENTILE_COLUMNS
from mipoison.metrics.statistics import mean_interval
from mipoison.storage.files import Storage
from study.analysis.frontier import pareto_front, settings_table
from study.records.finished import StoredStudy, load
from study.reports.html import build
from study.reports.html.heatmap import colour
from study.reports.html.importance import CHANCE, LEAST, importances
from study.reports.html.pictures import FACES, grid
from study.reports.html.vectors import project, release_vectors
from tests.study.analysis.helpers import failed, make_episodes

RESULTS = Path(__file__).parents[4] / "study" / "results"
HOSTILE = '</script><script>window.hacked = 1</script><img src=x onerror="window.hacked = 1">'


class Reader(HTMLParser):
    """Elements with their attributes, the text outside scripts and styles, tables as lists of rows."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text, self.inside, self.cell = "", "", False
        self.rows: list[list[str]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {k: v or "" for k, v in attrs}))
        self.inside = tag
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th") and self.rows:
            self.rows[-1].append("")
            self.cell = True

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""
        self.cell = self.cell and tag not in ("td", "th", "table")

    def handle_data(self, data: str) -> None:
        if self.inside in ("script", "style"):
            return
        self.text += data + " "
        if self.cell:
            self.rows[-1][-1] += data


def finished(frame: pd.DataFrame, tmp_path: Path, name: str = "made-up") -> StoredStudy:
    about = {
        "settings": {"max_accuracy_drop": 0.02, "scale": "quick"},
        "command": ["--data-root", "/my data"],
    }
    return StoredStudy(name, about, frame, None, Storage(tmp_path), "made-up")


def numbers_of(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="numbers">(.*?)</script>', page, flags=re.DOTALL)
    assert found
    return json.loads(found[1])


@pytest.fixture(scope="module")
def episodes() -> pd.DataFrame:
    """A made-up study: percentiles, one cut setting, a failed one, one seed of an attacker that failed."""
    rows = make_episodes(n_lpa=12, seeds=3).to_dict("records")
    rng = np.random.default_rng(0)
    for row in rows:
        values = np.sort(row["reconstruction_error"] * rng.uniform(0.2, 2, len(PERCENTILE_COLUMNS)))
        row |= dict(zip(PERCENTILE_COLUMNS, values.tolist(), strict=True))
        row["excess_leakage"] = 1 - row["reconstruction_error"] / 0.026
        if row["trial"] == "t200-lfp" and row["attack"] != "passive":
            row |= failed(row) | {"status": "cut", "error": "not run: label-only dominates"}
    lpa = [i for i, r in enumerate(rows) if r["trial"] == "t003-lpa"]
    rows[lpa[0]] = failed(rows[lpa[0]], HOSTILE)
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def page(episodes: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> str:
    return build(
        finished(episodes, tmp_path_factory.mktemp("page"), HOSTILE), "results/it's here", with_vectors=False
    )


def test_nothing_is_fetched_and_only_our_script_may_run(page: str) -> None:
    read = Reader(page)
    for tag, attributes in read.elements:
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            assert attributes.get(name, "").partition(":")[0] in ("", "data") or attributes[name][0] == "#", (
                tag
            )
        assert not [name for name in attributes if name.startswith("on")], tag
    css = "".join(re.findall(r"<style>(.*?)</style>", page, flags=re.DOTALL))
    assert "url(" not in css
    assert "@import" not in css
    (policy,) = [a["content"] for t, a in read.elements if a.get("http-equiv") == "Content-Security-Policy"]
    script = re.search(r"</script>\n<script>(.*)</script></body>", page, flags=re.DOTALL)
    assert script
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert "default-src 'none'" in policy
    assert f"script-src 'sha256-{digest}'" in policy


def test_what_records_say_is_text(page: str) -> None:
    read = Reader(page)
    assert [tag for tag, _ in read.elements].count("script") == 2
    assert not [a for t, a in read.elements if t == "img" and a.get("src") == "x"]
    assert HOSTILE in read.text  # the error in the table of failures, the name in the heading
    assert HOSTILE not in page


def test_points_are_the_settings(page: str, episodes: pd.DataFrame) -> None:
    """Against plain means over the records, and the frontier's own table."""
    numbers = numbers_of(page)
    points = {p["trial"]: p for p in numbers["points"]}
    settings = settings_table(episodes, max_accuracy_drop=0.02)
    assert set(points) == set(settings.dropna(subset=["worst_reconstruction_error"])["trial"])
    assert {t for t, p in points.items() if p["front"]} == set(pareto_front(settings)["trial"])
    whole = episodes[(episodes["status"] == "ok") & ~episodes["trial"].isin(["t003-lpa", "t200-lfp"])]
    by_attack = whole.groupby(["trial", "attack"])[["reconstruction_error", "attack_accuracy"]].mean()
    for trial, means in by_attack.groupby(level="trial"):
        assert points[trial]["error"][0] == pytest.approx(means["reconstruction_error"].min())
        assert points[trial]["accuracy"][0] == pytest.approx(means["attack_accuracy"].max())
        worst = means["reconstruction_error"].idxmin()[1]
        errors = whole[(whole["trial"] == trial) & (whole["attack"] == worst)]["reconstruction_error"]
        interval = mean_interval(errors.to_numpy())
        assert points[trial]["error"][1:] == pytest.approx([interval.low, interval.high])
        text = "\n".join(points[trial]["lines"])
        assert f"by {worst}" in text
        assert "seeds 3" in text
    assert "budget=" in points["t005-lpa"]["lines"][0]
    assert points["t200-lfp"]["cut"]
    assert "bound" in points["t200-lfp"]["lines"][-1]
    assert points["t003-lpa"]["command"] == (
        "python study/evaluate.py --like 'results/it'\"'\"'s here' --trial t003-lpa --data-root '/my data'"
    )


def test_heat_map_holds_the_means_and_marks_the_worst(page: str, episodes: pd.DataFrame) -> None:
    rows = {row[0].split("t0")[0]: row for row in Reader(page).rows if row}
    heading = next(row for row in Reader(page).rows if row and row[0] == "setting" and "passive" in row)
    cells = next(row for row in Reader(page).rows if row and row[0].endswith("t005-lpa"))
    means = episodes[episodes["trial"] == "t005-lpa"].groupby("attack")["reconstruction_error"].mean()
    for attack, cell in zip(heading[1:], cells[1:], strict=True):
        assert cell.startswith(f"{1000 * means[attack]:.1f}")
        assert ("▲" in cell) == (attack == means.idxmin())
    cut = next(row for row in Reader(page).rows if row and row[0].endswith("t200-lfp"))
    assert sorted(cut[1:])[-2:] == ["cut", "cut"]
    partly = next(row for row in Reader(page).rows if row and row[0].endswith("t003-lpa"))
    assert sum("†" in cell for cell in partly) == 1
    assert rows


def test_colours_are_told_apart_without_hue() -> None:
    def luminance(text: str) -> float:
        parts = [int(text[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    shades = [colour(p) for p in np.linspace(0, 1, 11)]
    values = [luminance(background) for background, _ in shades]
    assert values == sorted(values)
    for value, (_, ink) in zip(values, shades, strict=True):
        contrast = (value + 0.05) / 0.05 if ink == "#000" else 1.05 / (value + 0.05)
        assert contrast >= 4.5  # WCAG AA


def test_curves_are_the_mean_percentiles_of_the_worst_attacker(page: str, episodes: pd.DataFrame) -> None:
    numbers = numbers_of(page)
    curve = next(c for c in numbers["curves"] if c["trial"] == "t005-lpa")
    own = episodes[(episodes["trial"] == "t005-lpa") & (episodes["attack"] == curve["attacker"])]
    assert curve["epsilon"] == pytest.approx(own[list(PERCENTILE_COLUMNS)].mean().tolist(), rel=1e-4)
    assert numbers["eta"] == [p / 100 for p in ERROR_PERCENTS]


def test_checks_and_failures_are_counted(page: str, episodes: pd.DataFrame) -> None:
    rows = Reader(page).rows
    for column, raised_if, means in checks_table():
        row = next(r for r in rows if r and r[0] == column.removeprefix("check.") and len(r) == 5)
        assert (row[3], row[4]) == (raised_if, means)
        if column in episodes:
            told = episodes[column].dropna()
            assert row[2] == f"{int(told.sum())} of {len(told)}"
    failures = [r for r in rows if r and r[0] in ("failed", "cut") and len(r) == 6]
    assert [(r[0], r[3]) for r in failures] == [("failed", "1"), ("cut", "3"), ("cut", "3")]


def test_the_page_is_accessible(page: str) -> None:
    read = Reader(page)
    tags = [tag for tag, _ in read.elements]
    assert tags.count("table") == tags.count("caption")
    assert next(a for t, a in read.elements if t == "html")["lang"] == "en"
    assert all(a.get("alt") for t, a in read.elements if t == "img")
    assert all(
        a.get("tabindex") == "0" and a.get("aria-label")
        for _, a in read.elements
        if a.get("class") == "scroll"
    )
    assert all("scope" in a for t, a in read.elements if t == "th")
    ids = [a["id"] for _, a in read.elements if "id" in a]
    assert len(ids) == len(set(ids))
    assert {a["href"] for t, a in read.elements if t == "a"} <= {f"#{i}" for i in ids}


def settings_of(values: list[float], budgets: list[float], rounds: list[int]) -> pd.DataFrame:
    rows = [
        {"trial": f"t{i}", "defense": "lpa", "cut": False, "confidence_distortion": b,
         "worst_attack_accuracy": 1.0, "worst_reconstruction_error": v,
         "defense.budget": b, "defense.rounds": r}
        for i, (v, b, r) in enumerate(zip(values, budgets, rounds, strict=True))
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_importance_finds_the_knob_that_matters() -> None:
    rng = np.random.default_rng(1)
    budgets, rounds = np.geomspace(1e-3, 0.5, 40), rng.integers(1, 20, 40)
    table = settings_of((0.03 + 0.002 * np.log(budgets)).tolist(), budgets.tolist(), rounds.tolist())
    found, silent = importances(table)
    assert silent == {}
    by_name = {i.objective: i for i in found}
    assert set(by_name) == {"confidence_distortion", "worst_reconstruction_error"}  # accuracy does not vary
    one = by_name["worst_reconstruction_error"]
    assert one.n == 40
    assert one.shares["budget"] > 0.9
    assert one.skill > 0.8


def test_no_importance_from_few_settings_or_a_forest_that_knows_nothing() -> None:
    rng = np.random.default_rng(2)
    few = settings_of([0.03] * (LEAST - 1), [0.1] * (LEAST - 1), [1] * (LEAST - 1))
    assert importances(few) == ([], {"lpa": f"settings with a worst case: {LEAST - 1}, needed: {LEAST}"})
    n = 24
    chance = settings_of(
        rng.normal(size=n).tolist(), rng.uniform(1e-3, 1, n).tolist(), rng.integers(1, 9, n).tolist()
    )
    (one,) = [i for i in importances(chance)[0] if i.objective == "worst_reconstruction_error"]
    assert one.skill <= CHANCE
    assert one.shares == {}
    same = settings_of(rng.normal(size=n).tolist(), rng.uniform(1e-3, 1, n).tolist(), [3] * n)
    assert "only budget" in importances(same)[1]["lpa"]


def test_pictures_are_those_of_the_study(small_study: Path) -> None:
    study = load(small_study)
    read = Reader(build(study, "x", with_vectors=False))
    sources = [a["src"] for t, a in read.elements if t == "img"]
    assert len(sources) == 1 + 5  # truth, two anchors, three families
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(sources[0].partition(",")[2]))))
    with np.load(small_study / "pictures" / "none.npz", allow_pickle=False) as archive:
        truth = archive["truth"]
    assert (pixels[:, : truth.shape[3], 0] == truth[0, 0]).all()
    assert FACES not in read.text


def test_pictures_of_people_come_with_a_warning_and_broken_ones_are_left_out(
    small_study: Path, tmp_path: Path
) -> None:
    study = load(small_study)
    settings = settings_table(study.episodes, max_accuracy_drop=0.02)
    people = StoredStudy(**{**vars(study), "episodes": study.episodes.assign(dataset="lfw")})
    assert FACES in grid(people, settings)
    (tmp_path / "s" / "pictures").mkdir(parents=True)
    for trial in settings["trial"]:
        (tmp_path / "s" / "pictures" / f"{trial}.npz").write_bytes(b"no archive")
    broken = StoredStudy(**{**vars(study), "storage": Storage(tmp_path), "folder": "s"})
    assert "No reconstructions are kept" in grid(broken, settings)


def test_vectors_are_released_again(small_study: Path) -> None:
    study = load(small_study)
    settings = settings_table(study.episodes, max_accuracy_drop=0.02)
    told: list[str] = []
    vectors = release_vectors(
        study,
        settings,
        str(small_study.parent),
        None,
        lambda what, done, total: told.append(f"{done}/{total}"),
    )
    assert told[0] == "0/5"
    assert told[-1] == "5/5"
    clean = vectors["clean"]
    assert np.allclose(clean.sum(1), 1, atol=1e-5)
    one_hot = np.eye(clean.shape[1])[clean.argmax(1)]
    assert np.array_equal(vectors["label-only (the floor)"], one_hot)
    panels = project({"clean": clean, "hot": one_hot}, lambda *_: None)
    assert panels[0]["moved"] == pytest.approx(np.linalg.norm(one_hot - clean, axis=1).mean())
    assert [v["method"] for v in panels[0]["views"]] == ["PCA", "t-SNE"]
    assert all(len(v["released"]) == len(clean) for v in panels[0]["views"])


@pytest.mark.parametrize(
    "folder",
    [RESULTS / name / "study.json" for name in ("mnist-suite", "lfw-suite", "reproduction/mnist")],
    ids=lambda p: p.parent.name,
)
def test_committed_studies_have_a_page(folder: Path) -> None:
    study = load(folder.parent)
    page = build(study, f"study/results/{folder.parent.name}", with_vectors=False)
    numbers = numbers_of(page)
    settings = settings_table(study.episodes, max_accuracy_drop=study.max_accuracy_drop)
    assert len(numbers["points"]) == settings["worst_reconstruction_error"].notna().sum()
    text = Reader(page).text
    assert not re.findall(r"\bnan\b|<NA>", text)
    if "lfw" in folder.parent.name:
        assert "<img" not in page
    assert len(page) < 1e6


def test_the_script_as_a_person_runs_it(tmp_path: Path) -> None:
    root = Path(__file__).parents[4]
    out = tmp_path / "deep" / "page.html"
    command = [sys.executable, "study/report.py", "study/results/digits-fresh-noise", "--out", str(out)]
    run = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=240)
    assert run.returncode == 0, run.stderr
    assert "needs no network" in run.stdout
    assert "digits-fresh-noise" in out.read_text()


def test_bad_input_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from study import report

    assert report.main([str(tmp_path / "nothing")]) == 2
    error = capsys.readouterr().err
    assert "no study here" in error
    assert error.strip().count("\n") == 0


def test_a_study_in_an_object_store(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("moto.server", reason="moto's server is not installed")
    boto3 = pytest.importorskip("boto3")
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "test")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        client = boto3.client("s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1")
        client.create_bucket(Bucket="studies")
        for name in ("study.json", "episodes.parquet"):
            body = (RESULTS / "digits-fresh-noise" / name).read_bytes()
            client.put_object(Bucket="studies", Key=f"a/noise/{name}", Body=body)
        from study import report

        place = f"s3://studies/a/noise?endpoint_override={host}:{port}&scheme=http&region=us-east-1"
        assert report.main([place]) == 0
        page = client.get_object(Bucket="studies", Key="a/noise/report.html")["Body"].read().decode()
        assert "--like 's3://studies/a/noise?endpoint_override=" in json.dumps(numbers_of(page)["points"])
    finally:
        server.stop()
