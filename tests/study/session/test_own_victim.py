"""A user's own classifier on a user's image folder, from the command line; the example from end to end."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from mipoison.data.splits import make_split
from mipoison.serving.protect import load_unit, load_victim
from study import pareto, protect
from study.session import driver
from study.settings.study_settings import StudySettings, differences

NET = """
import torch
from torch import nn

def make():
    torch.manual_seed(0)
    return nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(16, 3))

def soft():
    return nn.Sequential(*make(), nn.Softmax(1))

def wide():
    return nn.Sequential(nn.Flatten(), nn.Linear(256, 10, bias=False))

def bare():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 3))

def transforms():
    from torchvision.transforms import v2
    return v2.Compose([v2.Resize(4, antialias=True), v2.Normalize([0.25], [0.5])])

def behind():
    from mipoison.victims import preprocessed
    return preprocessed(bare(), transforms())

def drawn():
    return nn.Sequential(nn.Flatten(), nn.Linear(256, 3))
"""
TINY = ["--executor", "local", "--seeds", "1", "--attackers", "passive", "--victim-steps", "10",
        "--decoder-steps", "5", "--image-size", "16"]  # fmt: skip


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with images of three classes that differ in brightness, and a trained module."""
    for k, name in enumerate(("a", "b", "c")):
        (tmp_path / "data" / name).mkdir(parents=True)
        for j in range(30):
            Image.new("L", (16, 16), 100 * k + j).save(tmp_path / "data" / name / f"{j}.png")
    (tmp_path / "cli_net.py").write_text(NET)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    sys.modules.pop("cli_net", None)
    split = make_split("folder:data", auxiliary="same", seed=0, image_size=16)
    net = load_victim("cli_net:make").module.requires_grad_(True)
    optimiser = torch.optim.Adam(net.parameters(), lr=0.1)
    for _ in range(200):
        loss = nn.functional.cross_entropy(net(split.private_train.x_NCHW), split.private_train.y_N)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    save_file(net.state_dict(), "net.safetensors")
    return tmp_path


def usage_error(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert pareto.main([*TINY, *arguments]) == 2
    _, err = capsys.readouterr()
    assert "Traceback" not in err
    assert err.strip().count("\n") == 0, err
    return err


def test_bad_input_is_one_line_before_any_work(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "run_study", lambda *_: pytest.fail("work was started"))
    own = ["--dataset", "folder:data", "--victim", "cli_net:make", "--victim-state", "net.safetensors"]
    folder = ["--dataset", "folder:data"]
    assert "retrains the victim" in usage_error(capsys, *own, "--defenses", "mid")
    assert "without --victim" in usage_error(capsys, *folder, "--victim-state", "net.safetensors")
    assert "--victim-outputs 'logits' without --victim" in usage_error(
        capsys, *folder, "--victim-outputs", "logits"
    )
    assert "--victim-transforms 'cli_net:transforms' without --victim" in usage_error(
        capsys, *folder, "--victim-transforms", "cli_net:transforms"
    )
    assert "expected module:name" in usage_error(capsys, *own, "--victim-transforms", "resnet18")
    assert "its preprocessing already" in usage_error(
        capsys, *folder, "--victim", "cli_net:behind", "--victim-transforms", "cli_net:transforms"
    )
    assert "--victim-outputs probabilities" in usage_error(
        capsys, *folder, "--victim", "cli_net:soft", "--victim-state", "net.safetensors"
    )
    assert "--victim-state 'none.pt': no such file" in usage_error(
        capsys, *folder, "--victim", "cli_net:make", "--victim-state", "none.pt"
    )
    assert "module:factory" in usage_error(capsys, *folder, "--victim", "cli_net.py")
    assert "no such file" in usage_error(capsys, *folder, "--victim", "net.pt2")
    drawn = usage_error(capsys, *folder, "--victim", "cli_net:drawn")
    assert "other weights each time it is made: give trained ones with --victim-state (" in drawn
    assert "does not fit cli_net:wide" in usage_error(
        capsys, *folder, "--victim", "cli_net:wide", "--victim-state", "net.safetensors"
    )
    save_file({"1.weight": torch.ones(10, 256)}, "wide.safetensors")
    wide = ["--victim", "cli_net:wide", "--victim-state", "wide.safetensors"]
    assert "10 outputs, the data 3 private classes" in usage_error(capsys, *folder, *wide)
    assert "half of 3 classes is no classifier" in usage_error(capsys, *own, "--auxiliary", "disjoint")
    large = usage_error(capsys, *own, "--image-size", "224")
    assert "16, 32, 64" in large
    assert "interpolate(x, 224)" in large
    assert "digits is 16x16" in usage_error(capsys, "--dataset", "digits", "--image-size", "32")
    assert "does not exist" in usage_error(capsys, "--dataset", "folder:nothing")
    assert not list(here.glob("results/*/study.json"))


def test_all_defenses_leave_out_those_that_retrain(here: Path) -> None:
    own = StudySettings(dataset="folder:data", victim="cli_net:make", victim_state="net.safetensors",
                        defenses=("all",))  # fmt: skip
    assert "mid" not in own.defenses
    assert {"lpa", "noise", "lpa-amortised"} <= set(own.defenses)
    assert "mid" in StudySettings(defenses=("all",)).defenses


def test_a_study_belongs_to_its_classifier(here: Path) -> None:
    """Other weights make another study: the digest that a resumed study compares and its scenes contain."""
    one = StudySettings(dataset="folder:data", victim="cli_net:make", victim_state="net.safetensors")
    scene = one.scenes()[0]
    assert (scene.victim, scene.victim_digest) == ("cli_net:make", one.victim_digest)
    save_file({"2.weight": torch.zeros(3, 16), "2.bias": torch.zeros(3)}, "other.safetensors")
    two = StudySettings(dataset="folder:data", victim="cli_net:make", victim_state="other.safetensors")
    assert [d.split(":")[0] for d in differences(one.identity(), two.identity())] == ["victim_digest"]
    assert two.scenes()[0].victim_name != scene.victim_name
    larger = dataclasses.replace(one, image_size=64)
    assert [d.split(":")[0] for d in differences(one.identity(), larger.identity())] == ["image_size"]


@pytest.mark.usefixtures("no_report")
def test_a_study_of_an_own_classifier(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = ["--dataset", "folder:data", "--victim", "cli_net:make", "--victim-state", "net.safetensors"]
    assert pareto.main([*TINY, *own, "--trials", "1", "--defenses", "rounding"]) == 0
    assert "\ntest images: a held-out part of the private images, " in capsys.readouterr().out
    episodes = pd.read_parquet(here / "results" / "folder-same" / "episodes")
    assert episodes["status"].isin(["ok", "cut"]).all()
    assert episodes["victim"].unique().tolist() == [f"cli_net:make@{episodes['scene.victim_digest'][0]}"]
    assert (episodes["n_classes"].dropna() == 3).all()
    assert (episodes["model_accuracy"].dropna() > 0.8).all()
    measured = episodes[episodes["status"] == "ok"]
    assert measured["test_may_be_seen"].all()
    assert measured["check.test_seen"].all()
    assert not list((here / "results" / "artifacts").glob("victim-*"))  # no victim was trained


def test_with_a_test_folder_utility_is_measured_on_unseen_images(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The classifier sees brightness; the images of test/ are of the wrong class, those of train/ are not."""
    for j, folder in enumerate(("train", "attack", "test")):
        for k, name in enumerate(("a", "b", "c")):
            (here / "split" / folder / name).mkdir(parents=True)
            for i in range(10):
                grey = 100 * ((k + (folder == "test")) % 3) + 3 * i + j
                Image.new("L", (16, 16), grey).save(here / "split" / folder / name / f"{i}.png")
    own = ["--victim", "cli_net:make", "--victim-state", "net.safetensors", "--trials", "0"]
    assert pareto.main([*TINY, "--dataset", "folder:split", *own, "--name", "unseen"]) == 0
    said = capsys.readouterr().out
    assert "test/ = private test images (30 images)" in said
    assert "which this classifier may have been trained on" not in said
    shutil.copytree(here / "split", here / "two", ignore=shutil.ignore_patterns("test"))
    assert pareto.main([*TINY, "--dataset", "folder:two", *own, "--name", "seen"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert said.count("may have been trained on") == 2  # at the start and in the answer
    assert "training steps: evaluators 10, decoder 5" in said
    found = {}
    for name in ("seen", "unseen"):
        rows = pd.read_parquet(here / "results" / name / "episodes")
        found[name] = rows[rows["status"] == "ok"]
        assert (found[name]["check.test_seen"] == (name == "seen")).all()
    assert (found["seen"]["model_accuracy"] > 0.8).all()
    assert (found["unseen"]["model_accuracy"] < 0.2).all()
    report = (here / "results" / "seen" / "report.md").read_text()
    assert "may have been trained on" in " ".join(report.split())


@pytest.mark.usefixtures("no_report")
def test_a_setting_of_an_own_classifier_becomes_a_unit(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the user's classifier alone; it is not kept in the unit's folder, and another one is refused."""
    own = ["--victim", "cli_net:make", "--victim-state", "net.safetensors"]
    study = ["--dataset", "folder:data", *own, "--trials", "1", "--defenses", "rounding"]
    assert pareto.main([*TINY, *study]) == 0
    words = ["--study", "results/folder-same", "--setting", "label-only", "--out", "unit"]
    assert protect.main(words) == 2
    assert "a classifier that records name is never loaded" in capsys.readouterr().err
    state = load_file("net.safetensors")
    save_file({name: value + 1 for name, value in state.items()}, "other.safetensors")
    assert protect.main([*words, *own[:3], "other.safetensors"]) == 2
    said = capsys.readouterr().err
    assert "is not the study's" in said
    assert "did you forget" not in said
    assert protect.main([*words, *own[:2]]) == 2
    assert "start a study of its own; did you forget --victim-state?" in capsys.readouterr().err
    assert not Path("unit").exists()
    assert protect.main([*words, *own]) == 0
    assert "--victim cli_net:make --victim-state net.safetensors" in capsys.readouterr().out
    assert sorted(p.name for p in Path("unit").iterdir()) == ["label.json", "unit.json", "unit.safetensors"]
    victim = load_victim("cli_net:make", "net.safetensors")
    x = make_split("folder:data", auxiliary="same", seed=0, image_size=16).private_test.x_NCHW
    released = load_unit("unit", device="cpu").wrap(victim)(x)
    assert torch.equal(released, nn.functional.one_hot(victim(x).argmax(1), 3).float())


@pytest.mark.usefixtures("no_report")
def test_a_study_of_stated_probabilities(here: Path) -> None:
    """A victim that returns probabilities gives the numbers of logits; records say so; it can be resumed."""
    own = [
        "--dataset",
        "folder:data",
        "--victim-state",
        "net.safetensors",
        "--trials",
        "0",
        "--defenses",
        "rounding",
    ]
    soft = ["--victim", "cli_net:soft", "--victim-outputs", "probabilities"]
    assert pareto.main([*TINY, *own, "--victim", "cli_net:make", "--name", "logits"]) == 0
    assert pareto.main([*TINY, *own, *soft, "--name", "soft"]) == 0
    logits, stated = (pd.read_parquet(here / "results" / name / "episodes") for name in ("logits", "soft"))
    assert stated["victim"].str.endswith(":probabilities").all()
    assert (stated["scene.victim_outputs"] == "probabilities").all()
    assert logits["scene.victim_outputs"].isna().all()
    for column in ("model_accuracy", "confidence_distortion"):
        assert stated[column].tolist() == pytest.approx(logits[column].tolist(), abs=1e-6, nan_ok=True)
    one = StudySettings(dataset="folder:data", victim="cli_net:soft", victim_state="net.safetensors")
    two = dataclasses.replace(one, victim_outputs="probabilities")
    assert [d.split(":")[0] for d in differences(one.identity(), two.identity())] == ["victim_outputs"]


@pytest.mark.usefixtures("no_report")
def test_a_study_of_stated_transforms(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``--victim-transforms`` measures what a factory that states the same measures; the study is resumed and
    its settings become units without naming them again, and other ones are refused."""
    state = {name.replace("2.", "1."): value for name, value in load_file("net.safetensors").items()}
    save_file(state, "bare.safetensors")
    own = ["--dataset", "folder:data", "--victim-state", "bare.safetensors", "--defenses", "rounding"]
    named, bare = ["--victim-transforms", "cli_net:transforms"], ["--victim", "cli_net:bare"]
    assert pareto.main([*TINY, *own, *bare, *named, "--trials", "0", "--name", "named"]) == 0
    assert pareto.main([*TINY, *own, "--victim", "cli_net:behind", "--trials", "0", "--name", "behind"]) == 0
    ours, theirs = (pd.read_parquet(here / "results" / name / "episodes") for name in ("named", "behind"))
    line = ours["scene.victim_transforms"].unique().tolist()
    assert [json.loads(text)["resize"] for text in line] == [[4]]
    assert theirs["scene.victim_transforms"].isna().all()
    for column in ("model_accuracy", "confidence_distortion", "reconstruction_error"):
        assert ours[column].tolist() == theirs[column].tolist(), column
    assert (
        json.loads(Path("results/named/study.json").read_text())["settings"]["victim_transforms"] == line[0]
    )

    resumed = ["--executor", "local", "--resume", "named", "--dataset", "folder:data", *bare,
               "--victim-state", "bare.safetensors"]  # fmt: skip
    assert pareto.main([*resumed, "--trials", "1"]) == 0
    again = pd.read_parquet(here / "results" / "named" / "episodes")
    assert again["scene.victim_transforms"].unique().tolist() == line
    assert pareto.main([*resumed, *named, "--trials", "1"]) == 0
    capsys.readouterr()
    assert pareto.main([*resumed, "--victim-transforms", '{"resize": [4], "antialias": true}']) == 2
    assert "victim_transforms: " in capsys.readouterr().err

    words = ["--study", "results/named", "--setting", "label-only", "--out", "unit"]
    assert protect.main([*words, *bare, "--victim-state", "bare.safetensors"]) == 0
    victim = load_victim("cli_net:bare", "bare.safetensors")
    x = make_split("folder:data", auxiliary="same", seed=0, image_size=16).private_test.x_NCHW
    released = load_unit("unit", device="cpu").wrap(victim)(x)
    labels = victim(sys.modules["cli_net"].transforms()(x)).argmax(1)
    assert torch.equal(released, nn.functional.one_hot(labels, 3).float())


@pytest.mark.ray
@pytest.mark.long
@pytest.mark.timeout(560)
def test_workers_find_the_classifier(here: Path) -> None:
    """On a local Ray, workers find module and weights, which are only in the driver's current folder."""
    with tempfile.TemporaryDirectory(prefix="mip", dir="/tmp", ignore_cleanup_errors=True) as home:
        drop = ("RAY_", "PYTEST_", "MIPOISON_")
        environment = {k: v for k, v in os.environ.items() if not k.startswith(drop)} | {
            "HOME": home, "TMPDIR": home, "MIPOISON_RAY_TMP": f"{home}/r", "PYTHONWARNINGS": "ignore",
            "PYTHONPATH": str(Path(__file__).parents[3]),
        }  # fmt: skip
        own = ["--dataset", "folder:data", "--victim", "cli_net:make", "--victim-state", "net.safetensors"]
        run = subprocess.run(
            [sys.executable, pareto.__file__, *TINY[2:], *own, "--trials", "1", "--defenses", "rounding",
             "--no-dashboard"],
            cwd=here, env=environment, capture_output=True, text=True, timeout=540,
        )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    episodes = pd.read_parquet(here / "results" / "folder-same" / "episodes")
    assert episodes["status"].isin(["ok", "cut"]).all(), episodes["error"].tolist()
    assert episodes["victim"].str.startswith("cli_net:make@").all()
