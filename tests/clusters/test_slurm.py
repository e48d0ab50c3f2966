"""The Slurm script, with stand-ins for Slurm, Ray and the study that write down how they were called."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from ray.scripts.scripts import cli

SCRIPT = Path(__file__).parents[2] / "clusters" / "slurm.sbatch"
SLURM = {"SLURM_JOB_ID": "12345", "SLURM_JOB_NODELIST": "node[1-3]", "SLURM_CPUS_PER_TASK": "8"}
SRUN = """
while [ "${1#--}" != "$1" ]; do case $1 in --nodelist=*) export AT=${1#*=};; esac; shift; done
exec "$@"
"""
RAY = """
case $1 in
    start) sleep 20;;
    health-check) tries=$(grep -c "^node1 ray health-check" "$LOG"); [ "$tries" -ge 3 ] && [ -z "$DEAD" ];;
esac
"""
STUDY = """
trap 'sleep 0.3; echo "${AT:--} saved" >>"$LOG"; exit 130' INT
for i in $(seq 100); do [ "$(grep -c "^node. ray start" "$LOG")" -ge 3 ] && break; sleep 0.05; done
[ -z "$LONG" ] || for i in $(seq 200); do sleep 0.1; done
exit ${CODE:-0}
"""


NOTE = """
line="${AT:--} NAME"
for word in "$@"; do line+=" $(printf %q "$word")"; done
echo "$line" >>"$LOG"
"""


@pytest.fixture
def job(tmp_path: Path) -> dict[str, str]:
    """The environment of a job whose commands are stand-ins, of a home with a token."""
    if shutil.which("bash") is None:
        pytest.skip("no bash")
    commands = {
        "srun": SRUN,
        "scontrol": "printf 'node1\\nnode2\\nnode3\\n'",
        "hostname": "echo 10.0.0.1 10.1.0.1",
        "ray": RAY,
        "mipoison": STUDY,
        "sleep": 'case $1 in 2) exit 0;; *) exec /bin/sleep "$1";; esac',
    }
    for name, body in commands.items():
        file = tmp_path / "bin" / name
        file.parent.mkdir(exist_ok=True)
        log = "" if name == "sleep" else NOTE.replace("NAME", name)
        file.write_text(f"#!/usr/bin/env bash\n{log}{body}\n")
        file.chmod(0o700)
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("0" * 64)
    return {
        "HOME": str(tmp_path),
        "PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin",
        "LOG": str(tmp_path / "log"),
        "DEAD": "",
        "LONG": "",
        "AT": "",
        **SLURM,
    }


def start(job: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["bash", str(SCRIPT), *arguments],
        env=job, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


def end(running: subprocess.Popen[str], timeout: float = 30) -> tuple[int, str]:
    """Exit code and errors; Slurm's part, which ends what else runs in the job, is ours."""
    try:
        code = running.wait(timeout)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)
    assert running.stderr is not None
    return code, running.stderr.read()


def called(job: dict[str, str], name: str) -> list[list[str]]:
    """Node and words of each call of a command."""
    lines = [shlex.split(line) for line in Path(job["LOG"]).read_text().splitlines()]
    return [[line[0], *line[2:]] for line in lines if line[1:2] == [name]]


def test_ray_starts_on_every_node_and_the_study_on_the_first(job: dict[str, str]) -> None:
    arguments = ["--dataset", "mnist", "--name", "two words", "--trials", "5"]
    code, _ = end(start(job, *arguments))
    assert code == 0
    started = [call for call in called(job, "ray") if call[1] == "start"]
    address = "10.0.0.1:22345"
    head = ["node1", "start", "--head", "--node-ip-address=10.0.0.1", "--port=22345", "--num-cpus=8"]
    assert started[0] == [*head, "--temp-dir=/tmp/mip.12345", "--block"]
    assert sorted(started[1:]) == [
        [node, "start", f"--address={address}", "--num-cpus=8", "--block"] for node in ("node2", "node3")
    ]
    assert called(job, "mipoison") == [["-", "pareto", "--address", address, *arguments]]
    # Ray's own parser takes these words; the study begins when the head has answered.
    for call in (*started, *(c for c in called(job, "ray") if c[1] == "health-check")):
        command = cli.commands[call[1]]
        command.make_context(call[1], list(call[2:]))
    assert len([c for c in called(job, "ray") if c[1] == "health-check"]) == 3


def test_the_studys_exit_code_is_the_jobs(job: dict[str, str]) -> None:
    code, _ = end(start(job | {"CODE": "7"}))
    assert code == 7


def test_the_signal_before_the_time_limit_reaches_the_study_which_is_waited_for(job: dict[str, str]) -> None:
    running = start(job | {"LONG": "1"})
    until = time.monotonic() + 20
    while not (Path(job["LOG"]).exists() and called(job, "mipoison")) and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(0.3)  # the stand-in's trap
    os.kill(running.pid, signal.SIGINT)
    code, _ = end(running)
    assert code == 130
    assert "- saved" in Path(job["LOG"]).read_text()


def test_no_token_or_a_head_that_does_not_answer_is_a_line(job: dict[str, str]) -> None:
    code, said = end(start(job | {"DEAD": "1"}))
    assert code == 1
    assert "node1 (10.0.0.1:22345) does not answer" in said
    assert not called(job, "mipoison")
    (Path(job["HOME"]) / ".ray" / "auth_token").unlink()
    Path(job["LOG"]).unlink()
    code, said = end(start(job))
    assert code == 2
    assert "ray get-auth-token --generate" in said
    assert not Path(job["LOG"]).exists()  # nothing was started without it
