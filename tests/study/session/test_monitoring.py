"""Metrics, job status and logs of a running study: served by Ray, token-protected, equal to the records."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from prometheus_client.parser import text_string_to_metric_families

from mipoison.storage.files import Storage
from study.analysis.frontier import configuration_table, hypervolume, reference_point
from study.analysis.verdicts import verdict_table
from study.bench.simulated_cluster import Nodes, private_environment
from study.records.constraints import Constraints
from study.records.store import Records
from study.session import monitoring

ROOT = Path(__file__).parents[3]
DASHBOARD = ROOT / "clusters" / "grafana-dashboard.json"
LIMIT_S = 240
STUDY = "watched"
COMMAND = [
    *("--trials", "3", "--seeds", "2", "--limit", "100", "--victim-steps", "30", "--decoder-steps", "20"),
    *("--decoder-width", "4", "--defenses", "noise", "--attackers", "passive", "label-only"),
]

Labels = frozenset[tuple[str, str]]
pytestmark = [pytest.mark.ray, pytest.mark.timeout(2 * LIMIT_S)]


@dataclass
class Watched:
    """A study that ran as a job: what was scraped meanwhile, what it left.

    Attributes:
        samples: last value of every series, by name and labels; also those that are gone at the end.
        families: names of Ray's and our metric families.
        answers: status codes of the job's status by credential, and its log.
    """

    records: pd.DataFrame
    artifacts: int
    samples: dict[tuple[str, Labels], float] = field(default_factory=dict)
    families: set[str] = field(default_factory=set)
    answers: dict[str, Any] = field(default_factory=dict)

    def value(self, name: str, **labels: str) -> float:
        """Sum of the series of that name that have these labels; an error if there is none."""
        found = [v for (n, have), v in self.samples.items() if n == name and set(labels.items()) <= have]
        assert found, f"no {name} with {labels} among {sorted({n for n, _ in self.samples if 'mip' in n})}"
        return sum(found)


def get(url: str, token: str | None = None) -> tuple[int, str]:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def submit(environment: dict[str, str], dashboard: str, storage: Path) -> str:
    """Submit the study as a user would; retries while the head's agent is starting."""
    study = [
        sys.executable,
        str(ROOT / "study" / "pareto.py"),
        *COMMAND,
        "--name",
        STUDY,
        "--storage",
        str(storage),
    ]
    deadline = time.monotonic() + LIMIT_S
    while True:
        job = f"job-{int(time.monotonic() * 1000)}"
        command = [
            "ray",
            "job",
            "submit",
            "--address",
            f"http://{dashboard}",
            "--no-wait",
            "--submission-id",
            job,
        ]
        done = subprocess.run(
            [str(Path(sys.executable).with_name("ray")), *command[1:], "--", *study],
            env=environment,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )
        if done.returncode == 0:
            return job
        assert "No available agent" in done.stderr, done.stderr
        assert time.monotonic() < deadline, done.stderr
        time.sleep(1)


def scrape(watched: Watched, targets: list[str]) -> None:
    for target in targets:
        status, text = get(f"http://{target}/metrics")
        assert status == 200
        for family in text_string_to_metric_families(text):
            watched.families.add(family.name)
            for sample in family.samples:
                watched.samples[sample.name, frozenset(sample.labels.items())] = sample.value


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    storage = tmp_path_factory.mktemp("storage")
    result = Watched(pd.DataFrame(), 0)
    with (
        private_environment(RAY_metrics_report_interval_ms="1000") as environment,
        Nodes(environment, 1, dashboard=True) as nodes,
    ):
        token = Path(environment["RAY_AUTH_TOKEN_PATH"]).read_text()
        job = submit(environment, nodes.dashboard, storage)
        url = f"http://{nodes.dashboard}/api/jobs/{job}"
        result.answers["nobody"] = get(url)[0]
        result.answers["stranger"] = get(url, "0" * len(token))[0]
        result.answers["log, nobody"] = get(f"{url}/logs")[0]
        deadline, status = time.monotonic() + LIMIT_S, ""
        while status not in ("SUCCEEDED", "FAILED", "STOPPED") and time.monotonic() < deadline:
            code, text = get(url, token)
            assert code == 200, text
            status = json.loads(text)["status"]
            # The nodes' endpoints, as Prometheus finds them; the autoscaler's and the dashboard's own have
            # fixed ports, which another cluster on this machine may use.
            _, found = get(f"http://{nodes.dashboard}/api/prometheus/sd", token)
            targets = [t for group in json.loads(found) for t in group["targets"]]
            scrape(result, [t for t in targets if not t.endswith((":44217", ":44227"))])
            time.sleep(0.5)
        result.answers["status"] = status
        result.answers["log"] = json.loads(get(f"{url}/logs", token)[1])["logs"]
        time.sleep(1.5)  # one more report of the node's agent
        scrape(result, [t for t in targets if not t.endswith((":44217", ":44227"))])
    result.records = Records(Storage(storage), STUDY).read()
    result.artifacts = sum(1 for p in (storage / "artifacts").rglob("*") if p.is_file())
    return result


def test_the_job_is_reached_with_the_token_alone(watched: Watched) -> None:
    assert watched.answers["nobody"] in (401, 403)
    assert watched.answers["stranger"] in (401, 403)
    assert watched.answers["log, nobody"] in (401, 403)
    assert watched.answers["status"] == "SUCCEEDED", watched.answers["log"]
    assert f"study {STUDY} in" in watched.answers["log"]
    assert "3/3 done, 0 failed" in watched.answers["log"]


def test_episodes_are_those_of_the_records(watched: Watched) -> None:
    assert len(watched.records) == 5 * 2 * 3
    groups = watched.records.groupby(["defense", "attack", "status"]).size()
    for (defense, attack, status), n in groups.items():
        labels = {"study": STUDY, "dataset": "digits", "defense": defense, "attack": attack, "status": status}
        assert watched.value("ray_mipoison_episodes_total", **labels) == n
    assert watched.value("ray_mipoison_episodes_total") == len(watched.records)
    assert watched.value("ray_mipoison_trials", state="done") == 3
    assert watched.value("ray_mipoison_trials", state="planned") == 3
    assert watched.value("ray_mipoison_trials", state="failed") == 0
    assert watched.value("ray_mipoison_trials", state="running") == 0


def test_seconds_are_those_of_the_records(watched: Watched) -> None:
    ok = watched.records[watched.records["status"] == "ok"]
    for stage in ("attack", "evaluate"):
        seconds = ok[f"seconds_{stage}"].to_numpy(dtype=float)
        assert watched.value("ray_mipoison_seconds_total", stage=stage) == pytest.approx(seconds.sum())
        assert watched.value("ray_mipoison_stage_seconds_count", stage=stage) == len(seconds)
        for bound in (0.1, 1.0, 10.0):
            below = watched.value("ray_mipoison_stage_seconds_bucket", stage=stage, le=str(bound))
            assert below == (seconds <= bound).sum()
    for stage in ("prepare", "poison"):  # once per setting and seed
        seconds = ok.groupby(["trial", "seed"])[f"seconds_{stage}"].first().to_numpy(dtype=float)
        assert watched.value("ray_mipoison_seconds_total", stage=stage) == pytest.approx(seconds.sum())
        assert watched.value("ray_mipoison_stage_seconds_count", stage=stage) == 10


def test_the_frontier_is_that_of_the_records(watched: Watched) -> None:
    settings = configuration_table(watched.records, constraints=Constraints())
    best = settings[settings["feasible"].fillna(False)]["worst_attack_accuracy"].min()
    assert watched.value("ray_mipoison_worst_attack_accuracy", study=STUDY) == pytest.approx(best)
    corner = reference_point(watched.records)
    assert corner is not None
    volume = hypervolume(settings, corner)
    assert watched.value("ray_mipoison_hypervolume", study=STUDY) == pytest.approx(volume)
    searched = settings[settings["feasible"].fillna(False) & settings["trial"].str.match(r"t\d")]["trial"]
    excess = verdict_table(watched.records).set_index("trial")["suite_excess_worst"][searched].min()
    assert watched.value("ray_mipoison_excess_leakage", study=STUDY) == pytest.approx(excess)
    ok = watched.records[watched.records["status"] == "ok"].set_index("trial").loc[searched]
    pools = ["identification_auc", "identification_auc_test"]
    largest = ok.groupby(["trial", "attack"])[pools].mean().max(axis=1).groupby("trial").max()
    assert watched.value("ray_mipoison_identification_auc", study=STUDY) == pytest.approx(largest.min())


def test_artifacts_are_those_of_the_storage(watched: Watched) -> None:
    """With one trial at a time no artifact is made twice, although trials run in other processes."""
    assert watched.value("ray_mipoison_artifacts_total", outcome="made") == watched.artifacts
    assert watched.value("ray_mipoison_artifacts_total", outcome="reused") >= 2 * 3


def expressions() -> list[str]:
    board = json.loads(DASHBOARD.read_text())
    return [target["expr"] for panel in board["panels"] for target in panel["targets"]]


def test_grafana_asks_for_what_there_is(watched: Watched) -> None:
    from ray.dashboard.modules.reporter.reporter_agent import METRICS_GAUGES

    scraped = (
        {name for name, _ in watched.samples} | {f"{n}_total" for n in watched.families} | watched.families
    )
    # A machine without a GPU reports no GPU metrics: their names are read from Ray's source.
    without_gpu = {f"ray_{name}" for name in METRICS_GAUGES if name.startswith(("node_gpu", "node_gram"))}
    asked = {name for text in expressions() for name in re.findall(r"\b(?:ray|autoscaler)_\w+", text)}
    assert asked - scraped - without_gpu == set()
    assert {"ray_node_gpus_utilization", "ray_node_cpu_utilization"} <= asked
    for name in monitoring.NAMES:
        assert any(full.startswith(f"ray_{name}") for full in asked), f"{name} is charted nowhere"


def test_the_grafana_file_can_be_imported() -> None:
    board = json.loads(DASHBOARD.read_text())
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids) >= len(monitoring.NAMES)
    assert [v["name"] for v in board["templating"]["list"] if v["type"] == "datasource"] == ["datasource"]
    for panel in board["panels"]:
        assert panel["datasource"]["uid"] == "${datasource}"
        assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"])
        assert panel["title"]
        assert panel["description"]
        spot = panel["gridPos"]
        assert spot["x"] + spot["w"] <= 24
    for text in expressions():
        assert text.count("(") == text.count(")")
        assert text.count("{") == text.count("}")
    cells = [
        (x, y)
        for p in (panel["gridPos"] for panel in board["panels"])
        for x in range(p["x"], p["x"] + p["w"])
        for y in range(p["y"], p["y"] + p["h"])
    ]
    assert len(set(cells)) == len(cells), "panels overlap"


def test_every_expression_is_promql() -> None:
    parser = pytest.importorskip("promql_parser", reason="pip install promql-parser")
    for text in expressions():
        parser.parse(text.replace("$study", ".*"))


def test_without_ray_nothing_is_imported(tmp_path: Path) -> None:
    code = (
        "import sys; from study.pareto import main; code = main(sys.argv[1:]); "
        "assert code == 0; assert 'ray' not in sys.modules, 'ray was imported'"
    )
    command = [*COMMAND, "--trials", "0", "--seeds", "1", "--executor", "local", "--storage", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-c", code, *command], capture_output=True, text=True, timeout=LIMIT_S
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_shared_stages_count_once_and_failures_not() -> None:
    rows = [
        {"status": "ok", "seed": 0, "seconds_prepare": 2.0, "seconds_poison": 1.0, "seconds_attack": 3.0},
        {"status": "ok", "seed": 0, "seconds_prepare": 2.0, "seconds_poison": 1.0, "seconds_attack": 4.0},
        {"status": "ok", "seed": 1, "seconds_prepare": 5.0, "seconds_poison": None, "seconds_attack": 6.0},
        {"status": "failed", "seed": 2, "seconds_prepare": None},
        {"status": "cut", "seed": 3},
    ]
    assert sorted(monitoring.stage_seconds(rows)) == [
        ("attack", 3.0),
        ("attack", 4.0),
        ("attack", 6.0),
        ("poison", 1.0),
        ("prepare", 2.0),
        ("prepare", 5.0),
    ]
