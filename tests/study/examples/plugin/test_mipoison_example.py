"""The example plug-in: installed into a folder of its own, found by its entry points, used in a study, read
without it, evaluated with the user's word alone."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import torch

from mipoison.config import ConfigError
from mipoison.contract import ATTACKER_CHECKS, DEFENSE_CHECKS, AttackerCase, DefenseCase, run_checks
from mipoison.scene import Scene
from study import evaluate, pareto, protect, report
from tests.mipoison.attacks.helpers import Spy, brightness, grey
from tests.reportless import without_report
from tests.study.examples.plugin.helpers import EXAMPLE, registries_restored

ROOT = Path(__file__).parents[4]
TINY = "--trials 2 --seeds 2 --victim-steps 40 --decoder-steps 20 --limit 100 --no-learning-curves"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip installed the example, without a network."""
    target = tmp_path_factory.mktemp("site")
    words = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target"]
    copy = tmp_path_factory.mktemp("source") / "plugin"
    copy.mkdir()
    for name in ("pyproject.toml", "mipoison_example.py"):
        (copy / name).write_bytes((EXAMPLE / name).read_bytes())
    done = subprocess.run(
        [sys.executable, *words, str(target), str(copy)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture(scope="module")
def studied(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of the installed plug-in, found by the names of its entry points."""
    root = tmp_path_factory.mktemp("plugged")
    arguments = (
        f"--executor local --name plugged {TINY} --defenses blend rounding --attackers raw-ridge ridge"
    )
    with pytest.MonkeyPatch.context() as patch, registries_restored():
        patch.syspath_prepend(str(site))
        without_report(patch)
        assert pareto.main([*arguments.split(), "--storage", str(root)]) == 0
    return root / "plugged"


@pytest.fixture
def _apart() -> Iterator[None]:
    with registries_restored():
        yield


def test_it_keeps_the_contract(tiny_scene: Scene) -> None:
    from study.examples.plugin.mipoison_example import BlendConfig, RawRidgeConfig

    results = run_checks(DefenseCase("blend", BlendConfig, tiny_scene), DEFENSE_CHECKS)
    results += run_checks(AttackerCase("raw-ridge", RawRidgeConfig(), tiny_scene), ATTACKER_CHECKS)
    assert [r.broken for r in results if r.broken] == []


def test_the_blend_lies_on_the_way_to_the_corner() -> None:
    from study.examples.plugin.mipoison_example import BlendConfig

    c = torch.tensor([[0.6, 0.3, 0.1]])
    for weight in (0.0, 0.25, 1.0):
        z = BlendConfig(weight=weight).make().protect(c, None, None, rng=None)  # type: ignore[arg-type]
        expected = torch.tensor([[0.6 + 0.4 * weight, 0.3 * (1 - weight), 0.1 * (1 - weight)]])
        torch.testing.assert_close(z, expected)
    with pytest.raises(ConfigError, match="between 0 and 1"):
        BlendConfig(weight=2.0)


def test_the_attacker_inverts_an_easy_victim() -> None:
    """Brightness is a linear function of its scores: it comes back up to the noise."""
    from mipoison.protocols import ThreatModel
    from study.examples.plugin.mipoison_example import RawRidgeConfig

    x = grey(80)
    attack = RawRidgeConfig(penalty=1e-6, noise=0.0).make()
    known = ThreatModel(None, {}, (1, 16, 16))
    attack.fit(Spy(brightness, 2), x[:60], known=known, rng=torch.Generator().manual_seed(0))
    found = attack.reconstruct(brightness(x[60:]))
    assert float((found - x[60:]).square().mean()) < 1e-3


def test_a_study_of_it_holds_its_episodes_and_says_where_they_are_from(studied: Path) -> None:
    episodes = pd.read_parquet(studied / "episodes")
    blend = episodes[episodes["defense"] == "blend"]
    assert set(blend["attack"]) == {"class-mean", "raw-ridge", "ridge"}
    assert blend["defense.weight"].between(0.05, 0.95).all()
    assert (blend.loc[blend["attack"] == "raw-ridge", "attack.noise"] == 0.02).all()
    assert not (episodes["status"] == "failed").any()
    stored = json.loads((studied / "study.json").read_text())["plugins"]
    assert sorted(stored["from"]) == ["blend", "raw-ridge"]


class Forbidden:
    """An import of the example is an error, whoever catches it."""

    asked = False

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.partition(".")[0] == "mipoison_example":
            self.asked = True
            raise ImportError(name)


@pytest.mark.usefixtures("_apart")
def test_its_page_is_written_without_it_even_where_it_is_installed(
    studied: Path, site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package could be found, and is not imported; the setting and its knob are on the page."""
    monkeypatch.syspath_prepend(str(site))
    assert importlib.util.find_spec("mipoison_example") is not None
    forbidden = Forbidden()
    monkeypatch.setattr(sys, "meta_path", [forbidden, *sys.meta_path])
    out = tmp_path / "page.html"
    assert report.main([str(studied), "--out", str(out)]) == 0
    assert not forbidden.asked
    assert "mipoison_example" not in sys.modules
    page = out.read_text()
    assert "blend" in page
    assert "weight" in page
    assert "raw-ridge" in page


def blend_of(studied: Path) -> str:
    return next(p.name.split(".")[0] for p in sorted((studied / "episodes").glob("*-blend.*")))


@pytest.mark.usefixtures("_apart")
def test_evaluating_needs_the_users_own_word(
    studied: Path,
    site: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.syspath_prepend(str(site))
    again = ["--like", str(studied), "--trial", blend_of(studied)]
    unit = ["--study", str(studied), "--setting", blend_of(studied), "--out", str(tmp_path / "unit")]
    resume = ["--resume", "--name", "plugged", "--storage", str(studied.parent), "--executor", "local"]
    for run in (
        lambda more: evaluate.main([*again, *more]),
        lambda more: protect.main([*unit, *more]),
        lambda more: pareto.main([*resume, *TINY.split(), "--defenses", "rounding", *more]),
    ):
        assert run([]) == 2
        assert "--plugin" in capsys.readouterr().err
    assert "mipoison_example" not in sys.modules
    assert evaluate.main([*again, "--plugin", "mipoison_example"]) == 0
    assert "all of them exactly" in " ".join(capsys.readouterr().out.split())
    assert protect.main([*unit, "--plugin", "mipoison_example"]) == 0
    assert "--plugin mipoison_example" in capsys.readouterr().out


@pytest.mark.usefixtures("_apart")
def test_serving_needs_the_users_own_word(
    studied: Path, site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = pytest.importorskip("study.serving.endpoint", reason="ray[serve] is not installed")
    monkeypatch.syspath_prepend(str(site))
    words = ["--study", str(studied), "--setting", blend_of(studied), "--out", str(tmp_path / "unit")]
    with registries_restored():
        assert protect.main([*words, "--plugin", "mipoison_example"]) == 0
    served = endpoint.Served(
        unit=str(tmp_path / "unit"), victim=None, victim_state=None, device="cpu", threads=1
    )
    with pytest.raises(ConfigError, match=r"'blend' is of plug-in 'mipoison_example'.*--plugin"):
        served.load()
    assert "mipoison_example" not in sys.modules
    protected = dataclasses.replace(served, plugins=("mipoison_example",)).load()
    released = protected(torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(0)))
    assert torch.allclose(released.sum(1), torch.ones(3), atol=1e-5)


@pytest.mark.usefixtures("_apart", "no_report")
def test_a_resumed_study_goes_on(
    studied: Path, site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(site))
    more = f"--resume --name plugged --executor local {TINY} --defenses blend rounding"
    more += " --attackers raw-ridge ridge"
    assert pareto.main([*more.split(), "--storage", str(studied.parent), "--plugin", "mipoison_example"]) == 0
    assert "0% failed" in capsys.readouterr().out


@pytest.mark.ray
def test_workers_of_ray_load_it_too(site: Path, tmp_path: Path) -> None:
    """A process of its own, as Ray reads its environment when it is imported."""
    words = (
        f"{TINY} --trials 1 --seeds 1 --name rayed --concurrent 1 --no-dashboard --plugin mipoison_example"
    )
    words += f" --defenses blend --attackers raw-ridge --storage {tmp_path / 'out'}"
    done = subprocess.run(
        [sys.executable, str(ROOT / "study" / "pareto.py"), *words.split()],
        capture_output=True, text=True, timeout=500, check=False, cwd=tmp_path,
        env={k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
        | {"PYTHONPATH": f"{ROOT}{os.pathsep}{site}", "MIPOISON_RAY_TMP": f"/tmp/mipp{os.getpid()}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    episodes = pd.read_parquet(tmp_path / "out" / "rayed" / "episodes")
    assert set(episodes.loc[episodes["defense"] == "blend", "status"]) == {"ok"}
