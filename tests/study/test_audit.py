"""The command against three web servers with three request templates; broken off, refused, resumed."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from audited_servers import PLAIN, Counted, folder_of, pictures, plain, scores, starlette

from study.audit import ABOVE, BROKEN, DONE, USAGE, main
from study.auditing import endpoint

ROOT = Path(__file__).parents[2]
QUERIES = 200


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    root = tmp_path_factory.mktemp("images")
    folder_of(root / "public", pictures(70, 0))
    folder_of(root / "private" / "train", pictures(40, 1))
    folder_of(root / "private" / "test", pictures(30, 2))
    return ["--public", str(root / "public"), "--private", str(root / "private")]


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "BACKOFF_S", 0.01)


def options(out: Path) -> list[str]:
    return ["--queries", str(QUERIES), "--rate", "0", "--out", str(out)]


def kept(out: Path) -> int:
    return sum(pq.read_metadata(path).num_rows for path in (out / "answers").glob("*.parquet"))


def test_a_plain_server_that_is_busy_at_times(
    folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """JSON with a nested path; every 20th request is answered 429, every 33rd with an error."""

    def fault(n: int) -> tuple[int, dict[str, str], bytes] | None:
        if n % 20 == 0:
            return 429, {"Retry-After": "0"}, b"slow down"
        return (500, {}, b"<h1>oops</h1>") if n % 33 == 0 else None

    model = Counted(fault=fault)
    with plain(model) as url:
        assert main([url, *folders, *PLAIN, *options(tmp_path), "--fail-above", "0.02"]) == ABOVE
    text = capsys.readouterr().out
    assert "excess leakage" in text
    assert "images that the classifier was trained on" in text
    assert "not shown to be within" in text or "above 0.02" in text
    found = json.loads((tmp_path / "audit.json").read_text())
    assert found["queries"] == kept(tmp_path) == sum(model.asked.values()) <= QUERIES
    assert max(model.asked.values()) == 3  # two repeats were planned
    assert found["excess"]["train"]["low"] <= found["excess"]["train"]["high"]
    assert (tmp_path / "report.txt").read_text().strip() in text


def test_a_starlette_app_behind_a_token(
    folders: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """PNG with a bearer token; the scores are an object by class name; it answers the label alone."""

    def label(x_HW: np.ndarray) -> list[float]:
        return [float(v) for v in np.eye(3)[int(np.argmax(scores(x_HW)))]]

    model, token = Counted(label), "t0ken-of-nobody"
    ask = ["--scores", "classes", "--header", "Authorization: Bearer $AUDIT_TOKEN", "--fail-above", "0.02"]
    with starlette(model, token) as url:
        monkeypatch.delenv("AUDIT_TOKEN", raising=False)
        assert main([url, *folders, *ask, *options(tmp_path)]) == USAGE
        monkeypatch.setenv("AUDIT_TOKEN", "wrong")
        assert main([url, *folders, *ask, *options(tmp_path)]) == BROKEN
        assert model.requests == 0
        monkeypatch.setenv("AUDIT_TOKEN", token)
        assert main([url, *folders, *ask, *options(tmp_path)]) == DONE
    said = capsys.readouterr()
    assert "'AUDIT_TOKEN' is not set" in said.err
    assert "status 401" in said.err
    assert "label-only" in said.out
    assert "certified        at most 0.000" in said.out
    assert token not in said.out + said.err
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or token.encode() not in path.read_bytes()


def test_a_corrected_mistake_goes_on_in_the_same_folder(
    folders: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a key nothing is answered: no answer is kept, and none is said to be."""
    monkeypatch.setenv("AUDIT_TOKEN", token := "t0ken-of-nobody")
    with starlette(Counted(), token) as url:
        words = [url, *folders, "--scores", "classes", *options(tmp_path)]
        assert main(words) == BROKEN
        said = " ".join(capsys.readouterr().err.split())
        assert "answers are kept" not in said
        assert "there is no answer yet" in said
        assert main([*words, "--header", "Authorization: Bearer $AUDIT_TOKEN"]) == DONE
        capsys.readouterr()
        assert main([*words, "--header", "X-API-Key: $AUDIT_TOKEN"]) == USAGE
    assert "(headers differ)" in " ".join(capsys.readouterr().err.split())


def test_a_spent_budget_ends_the_audit_with_what_is_kept(
    folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spent = (429, {"X-Queries-Remaining": "0"}, b"0 of the budget of 50 left")
    model = Counted(fault=lambda n: spent if n > 50 else None)
    with plain(model) as url:
        assert main([url, *folders, *PLAIN, *options(tmp_path)]) == BROKEN
    said = " ".join(capsys.readouterr().err.split())
    assert (kept(tmp_path), model.requests) == (50, 51)
    assert "nothing is left of the endpoint" in said
    assert "all answers are kept in" in said


def test_each_wait_is_said(folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = Counted(fault=lambda n: (429, {"Retry-After": "1"}, b"") if n == 3 else None)
    with plain(model) as url:
        assert main([url, *folders, *PLAIN, *options(tmp_path)]) == DONE
    assert "status 429: the next try is in 1 s, 7 are left" in capsys.readouterr().err


def test_the_help_shows_no_default_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    said = capsys.readouterr().out
    assert "URL" in said
    for absent in ("None", "(default: )"):
        assert absent not in said


def test_test_images_alone_do_not_pass(
    folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It answers the label alone, which is certified; but what of the images it was trained on?"""
    model = Counted(lambda x_HW: [float(v) for v in np.eye(3)[int(np.argmax(scores(x_HW)))]])
    test = ["--private", f"{folders[3]}/test", "--private-are", "test", "--fail-above", "0.02"]
    with plain(model) as url:
        words = [url, *folders[:2], *PLAIN, *options(tmp_path)]
        assert main([*words, "--fail-above", "0.02"]) == USAGE
        assert "give --private" in " ".join(capsys.readouterr().err.split())
        assert main([*words, *test]) == ABOVE
        text = capsys.readouterr().out
        assert "nothing can be said of images that the classifier was trained on" in text
        assert "--test-only-is-enough" in text
        assert main([*words, *test, "--test-only-is-enough"]) == DONE


def test_a_token_in_the_query_is_neither_printed_nor_stored(
    folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, token = Counted(), "t0ken-of-nobody"
    echo = f"cannot POST /classify?api_key={token}".encode()
    with plain(model) as url:
        words = [f"{url}?api_key={token}", *folders, *PLAIN, *options(tmp_path)]
        model.fault = lambda n: (404, {}, echo)
        assert main(words) == BROKEN
        model.fault = lambda n: (302, {"Location": f"/login?api_key={token}"}, b"")
        assert main(words) == BROKEN
        model.fault = lambda n: None
        assert main(words) == DONE
        said = capsys.readouterr()
        assert token not in said.out + said.err
        assert "?api_key=..." in said.out
        for path in tmp_path.rglob("*"):
            assert path.is_dir() or token.encode() not in path.read_bytes()
        (tmp_path / "endpoint.json").write_text("{")
        assert main(words) == USAGE
        assert "endpoint.json is damaged" in " ".join(capsys.readouterr().err.split())


def test_an_older_model_does_not_pass_for_a_new_one(
    folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def label(x_HW: np.ndarray) -> list[float]:
        return [float(v) for v in np.eye(3)[int(np.argmax(scores(x_HW)))]]

    model = Counted(label)
    with plain(model) as url:
        words = [url, *folders, *PLAIN, *options(tmp_path), "--fail-above", "0.02"]
        assert main(words) == DONE
        model.respond = scores
        assert main(words) == BROKEN
        assert "another --out" in " ".join(capsys.readouterr().err.split())
        model.respond = label
        assert main(words) == DONE
    assert "answers from earlier runs, oldest 20" in capsys.readouterr().out


@contextmanager
def own_server() -> Iterator[str]:
    """This project's server."""
    from study.serving.http_server import HttpServer

    async def answer(requests: list[np.ndarray]) -> list[np.ndarray]:
        return [
            np.array([scores((x[0] * 255).round()) for x in x_NCHW], np.float32).round(1)
            for x_NCHW in requests
        ]

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    server = HttpServer("127.0.0.1", port, image_shape=(1, 8, 8), n_classes=3, couples=False, max_batches=1)
    try:
        server.start(answer, lambda: "")
        yield f"http://127.0.0.1:{port}/release"
    finally:
        server.stop(2)


def test_our_own_server_with_its_own_template(
    folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """PNG in, {"released": [[...]]} out, scores rounded to tenths: the grid is recognised."""
    pytest.importorskip("uvicorn", reason="ray[serve] is not installed")
    with own_server() as url:
        assert main([url, *folders[:2], *options(tmp_path)]) == DONE
    text = capsys.readouterr().out
    assert "multiples of 1/10" in text
    assert "grid: rounding to a grid" in text
    assert "nothing can be said of images that the classifier was trained on" in text


def page_commands() -> list[str]:
    """The audit commands of the page on audits, continued lines joined."""
    text = (ROOT / ".docs" / "pages" / "audit.md").read_text().replace("\\\n", " ")
    return [line for line in text.splitlines() if line.startswith("mipoison audit ")]


@pytest.mark.parametrize("command", page_commands())
def test_the_commands_of_the_page(
    command: str, folders: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("API_KEY", "of nobody")
    words = shlex.split(command)[3:]
    for option, folder in zip(folders[::2], folders[1::2], strict=True):
        words[words.index(option) + 1] = folder
    model = Counted()
    with plain(model) if "--body" in words else own_server() as url:
        done = main([url, *words, *options(tmp_path)])
    assert done == (ABOVE if "--fail-above" in words else DONE)
    assert (tmp_path / "report.txt").read_text().startswith("AUDIT")
    if "--header" in words:
        assert model.headers["X-Api-Key"] == "of nobody"


def test_killed_and_continued_it_asks_nothing_twice(
    folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = Counted()
    with plain(model) as url:
        words = [url, *folders, *PLAIN, "--queries", str(QUERIES), "--out", str(tmp_path / "o")]
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "study" / "audit.py"), *words, "--rate", "60"],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stderr=subprocess.DEVNULL,
        )
        until = time.monotonic() + 180
        while model.requests < 60 and time.monotonic() < until:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait(30)
        before = model.requests
        assert 60 <= before < QUERIES
        assert main([*words, "--rate", "0"]) == DONE
        assert main([*words, "--rate", "0"]) == DONE  # all is kept: it asks nothing
    found = json.loads((tmp_path / "o" / "audit.json").read_text())
    assert sum(model.asked.values()) <= found["queries"] + 1  # the question under way when it was killed
    assert found["queries"] == kept(tmp_path / "o")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"<html>Bad gateway</html>", "not JSON"),
        (b'{"predictions": [{"scores": [0.1, NaN, 0.9]}]}', "NaN"),
        (b'{"predictions": [{"scores": [0.1, 0.9]}]}', "2 scores, the first answer had 3"),
        (b"x" * (2**20 + 1), "more than 1048576 bytes"),
    ],
)
def test_a_malformed_answer_ends_it_and_loses_nothing(
    folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], body: bytes, message: str
) -> None:
    model = Counted(fault=lambda n: (200, {}, body) if n == 8 else None)
    with plain(model) as url:
        words = [url, *folders, *PLAIN, *options(tmp_path)]
        assert main(words) == BROKEN
        said = capsys.readouterr().err
        assert message in " ".join(said.split())
        assert "all answers are kept" in said
        assert model.requests == 8
        assert kept(tmp_path) == (7 if len(body) > 2**20 else 8)
        model.fault = lambda n: (403, {}, b"enough")
        assert main([*words, "--ask-again"]) == BROKEN
        assert model.requests == 9  # the seven are not asked again
    assert "status 403" in capsys.readouterr().err


def test_bad_input(folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = "http://127.0.0.1:9/classify"
    for more, message in (
        (["--queries", "50"], "at least 200"),
        (["--fail-above", "2"], "fail_above"),
        (["--body", "{}"], "@image"),
        (["--private-are", "train"], "leave out"),
        (["--size", "1"], "size"),
        (["--rate", "-1"], "rate"),
        (["--public", str(tmp_path / "gone")], "does not exist"),
    ):
        assert main([url, *folders, "--out", str(tmp_path / "o"), *more]) == USAGE
        assert message in " ".join(capsys.readouterr().err.split())
