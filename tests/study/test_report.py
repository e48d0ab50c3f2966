"""The page's script, as a person runs it."""

from __future__ import annotations

import html
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from study.analysis.frontier import configuration_table
from study.records.finished import load
from study.reports.html import build
from tests.study.reports.html.helpers import Reader, settings_of

RESULTS = Path(__file__).parents[2] / "study" / "results"


@pytest.mark.parametrize(
    "folder",
    [RESULTS / name / "study.json" for name in ("mnist-suite", "lfw-suite", "reproduction/mnist")],
    ids=lambda p: p.parent.name,
)
def test_committed_studies_have_a_page(folder: Path) -> None:
    study = load(folder.parent)
    page = build(study, f"study/results/{folder.parent.name}", with_vectors=False)
    settings = configuration_table(study.episodes, constraints=study.constraints)
    assert len(settings_of(page)) == settings["worst_reconstruction_error"].notna().sum()
    text = Reader(page).text
    assert not re.findall(r"\bnan\b|<NA>", text)
    if "lfw" in folder.parent.name:
        assert "<img" not in page
    assert len(page) < 1e6


def test_the_script_as_a_person_runs_it(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    out = tmp_path / "deep" / "page.html"
    command = [sys.executable, "study/report.py", "study/results/digits-fresh-noise", "--out", str(out)]
    run = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=240)
    assert run.returncode == 0, run.stderr
    assert "needs no network" in run.stdout
    assert "digits-fresh-noise" in out.read_text()
    made = json.loads((tmp_path / "deep" / "page.label.json").read_text())
    assert (made["study"], made["recommended"]) == ("digits-fresh-noise", True)
    start = "python study/evaluate.py --like study/results/digits-fresh-noise --trial "
    assert made["command"].startswith(start)  # as on the page
    assert made["command"] in html.unescape(out.read_text())
    assert (tmp_path / "deep" / "page.label.md").read_text().startswith("## Privacy label: ")


def test_the_label_of_a_named_setting(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from study import report

    words = [str(RESULTS / "digits-fresh-noise"), "--out", str(tmp_path / "a.html"), "--vectors", "no"]
    assert report.main([*words, "--label", "none"]) == 0
    assert json.loads((tmp_path / "a.label.json").read_text())["trial"] == "none"
    assert report.main([*words, "--label", "t9999"]) == 2
    assert "unknown trial 't9999'" in capsys.readouterr().err


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
        assert "--like 's3://studies/a/noise?endpoint_override=" in json.dumps(settings_of(page))
    finally:
        server.stop()
