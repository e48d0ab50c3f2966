"""The user's own classifier: how it is loaded, what its digest covers, and which classifiers are refused."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from mipoison.attacks import ATTACKS
from mipoison.config import ConfigError
from mipoison.defenses import DEFENSES
from mipoison.episode import EpisodeConfig, run_episode
from mipoison.scene import SceneConfig, prepare, split_of
from mipoison.storage.artifacts import ArtifactStore
from mipoison.storage.files import Storage
from mipoison.victims.ask import Classifier
from mipoison.victims.check import check_victim
from mipoison.victims.own import load_victim, repeatable_digest

NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, k=10):
        super().__init__()
        head = nn.Linear(24, k)
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(256, 24), nn.BatchNorm1d(24), nn.ReLU(), head)
    def forward(self, x):
        return self.body(2 * x - 1)

def make():
    torch.manual_seed(3)
    return Net()

def drawn():
    return Net()

def nothing():
    return "no module"

def fails():
    raise OSError("no such\\nweights")

number = 7
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A current folder with a module of the user's, forgotten afterwards."""
    (tmp_path / "own_net.py").write_text(NET)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    path = list(sys.path)
    yield tmp_path
    sys.path[:] = path
    sys.modules.pop("own_net", None)


def refused(source: Any, state: Any = None) -> str:
    with pytest.raises(ConfigError) as caught:
        load_victim(source, state)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_factory_of_the_current_folder(here: Path) -> None:
    victim = load_victim("own_net:make")
    assert not victim.training
    assert not victim.train().module.training  # type: ignore[union-attr]
    assert not any(p.requires_grad for p in victim.parameters())
    assert victim(torch.rand(3, 1, 16, 16)).shape == (3, 10)
    assert victim.name == "own_net:make"


def test_an_installed_factory() -> None:
    victim = load_victim("torchvision.models:squeezenet1_1")
    assert victim(torch.rand(1, 3, 32, 32)).shape == (1, 1000)


def test_weights_from_safetensors_and_state_dicts(here: Path) -> None:
    from own_net import Net  # type: ignore[import-not-found]

    trained = Net().eval()
    save_file(trained.state_dict(), "w.safetensors")
    torch.save(trained.state_dict(), "w.pt")
    torch.save({"state_dict": trained.state_dict(), "epoch": 3}, "nested.pt")
    x = torch.rand(4, 1, 16, 16)
    loaded = [load_victim("own_net:make", name) for name in ("w.safetensors", "w.pt", "nested.pt")]
    assert all(torch.equal(victim(x), trained(x)) for victim in loaded)
    assert len({victim.digest for victim in loaded}) == 1
    assert load_victim("own_net:make").digest != loaded[0].digest


def test_the_digest_follows_weights_code_and_name(here: Path) -> None:
    first = load_victim("own_net:make").digest
    assert load_victim("own_net:make").digest == first == repeatable_digest("own_net:make", None)
    other = load_victim("own_net:make").module
    with torch.no_grad():
        next(other.parameters())[0, 0] += 1e-6
    save_file(other.state_dict(), "w.safetensors")
    assert load_victim("own_net:make", "w.safetensors").digest != first
    (here / "own_net.py").write_text(NET.replace("2 * x - 1", "2 * x - 1.5"))
    assert load_victim("own_net:make").digest != first
    with pytest.raises(ConfigError, match="other weights each time"):
        repeatable_digest("own_net:drawn", None)


class Pickled:
    """Unpickling this object would run code."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("ran"),))


def test_a_state_file_never_runs_code(here: Path) -> None:
    torch.save({"body.1.weight": Pickled()}, "evil.pt")
    assert "evil.pt" in refused("own_net:make", "evil.pt")
    assert not (here / "ran").exists()


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("own_net", "module:factory"),
        ("own_net.py:make", "without .py"),
        ("own_net.pth", "file.pt2"),
        ("../own_net:make", "module:factory"),
        ("own_nett:make", "No module named 'own_nett'"),
        ("own_net:made", "no attribute 'made'"),
        ("own_net:number", "is an int"),
        ("own_net:nothing", "returned a str"),
        ("own_net:fails", "the factory failed: OSError: no such weights"),
        ("none.pt2", "no such file"),
    ],
)
def test_sources_that_are_none(here: Path, source: str, said: str) -> None:
    assert said in refused(source)


def test_paths_are_taken_as_their_text(here: Path) -> None:
    save_file(load_victim("own_net:make").module.state_dict(), "w.safetensors")
    texts = load_victim("own_net:make", "w.safetensors")
    paths = load_victim(Path("own_net:make"), Path("w.safetensors"))
    assert (paths.name, paths.digest) == (texts.name, texts.digest)
    assert "no such file" in refused(here / "none.pt2")
    for other, kind in (
        (None, "a NoneType"),
        (3, "an int"),
        (b"own_net:make", "a bytes"),
        (nn.Flatten(), "a Flatten"),
        (nn.Flatten, "the class Flatten"),
    ):
        assert f"source is {kind}: expected text, module:factory" in refused(other)
    assert "state is a dict: expected text, the path" in refused("own_net:make", {"weight": torch.ones(1)})


def test_state_files_that_do_not_fit(here: Path) -> None:
    save_file({"other": torch.zeros(2)}, "w.safetensors")
    assert "does not fit own_net:make" in refused("own_net:make", "w.safetensors")
    (here / "broken.pt").write_bytes(b"PK\x03\x04 nothing")
    assert "broken.pt" in refused("own_net:make", "broken.pt")
    assert "no such file" in refused("own_net:make", "none.pt")


def test_an_exported_program(here: Path) -> None:
    from own_net import Net

    net, x = Net().eval(), torch.rand(5, 1, 16, 16)
    dynamic = torch.export.export(net, (x,), dynamic_shapes=({0: torch.export.Dim("n", min=1)},))
    torch.export.save(dynamic, "net.pt2")
    victim = load_victim(str(here / "net.pt2"))
    assert victim.name == "net.pt2"
    assert torch.allclose(victim.eval()(x), net(x), atol=1e-6)
    y = net(x).argmax(1)
    check_victim(victim.asked, x, y, 10)
    torch.export.save(torch.export.export(net, (x,)), "fixed.pt2")
    assert "batches of 5 alone" in refused("fixed.pt2")
    assert "has its own weights" in refused("net.pt2", "own_net.py")
    (here / "bad.pt2").write_bytes(b"no archive")
    assert "not a torch.export file" in refused("bad.pt2")


class Odd(nn.Module):
    """A linear classifier with one thing wrong."""

    def __init__(self, wrong: str, k: int = 4) -> None:
        super().__init__()
        self.wrong, self.linear = wrong, nn.Linear(256, k)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        z = self.linear(x_NCHW.flatten(1))
        if self.wrong == "probabilities":
            return z.softmax(1)
        if self.wrong == "nan":
            return z / 0 * 0
        if self.wrong == "batch":
            return z - z.mean(0) + torch.arange(z.shape[1])
        if self.wrong == "random":
            return z + torch.randn_like(z)
        if self.wrong == "shape":
            return z[:, :, None]
        return z


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("probabilities", "return logits"),
        ("nan", "not finite"),
        ("batch", "differently among others"),
        ("random", "differently when asked again"),
        ("shape", r"expected logits \(N, K\)"),
    ],
)
def test_classifiers_that_cannot_be_attacked(wrong: str, said: str) -> None:
    torch.manual_seed(0)
    model, x = Classifier(Odd(wrong).eval()), torch.rand(20, 1, 16, 16)
    with pytest.raises(ConfigError, match=said):
        check_victim(model, x, torch.arange(20) % 4, 4)


def test_outputs_must_be_the_private_classes_in_order() -> None:
    torch.manual_seed(0)
    model, x = Classifier(Odd("").eval()), torch.rand(60, 1, 16, 16)
    z = model(x)
    y = (z - z.median(0).values).argmax(1)  # an untrained network prefers a class
    model.module.linear.bias.data -= z.median(0).values  # type: ignore[union-attr, operator]
    check_victim(model, x, y, 4)
    with pytest.raises(ConfigError, match="4 outputs, the data 5 private classes"):
        check_victim(model, x, y, 5)
    with pytest.raises(ConfigError, match="fails on images 3x8x8"):
        check_victim(model, torch.rand(2, 3, 8, 8), y[:2], 4)
    with pytest.raises(ConfigError, match="no better than chance"):
        check_victim(model, x, (y + 1) % 4, 4)


# ------------------------------------------------------------------------------------------- scenes


@pytest.fixture
def own_scene(here: Path, tiny_config: SceneConfig) -> SceneConfig:
    """All ten digits private, an own classifier that knows them."""
    config = dataclasses.replace(tiny_config, limit=200)
    whole = dataclasses.replace(config, victim="own_net:make", victim_digest="-")
    split = split_of(whole)
    net = load_victim("own_net:make").module.train().requires_grad_(True)
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(60):
        loss = nn.functional.cross_entropy(net(split.private_train.x_NCHW), split.private_train.y_N)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    save_file(net.state_dict(), "w.safetensors")
    digest = repeatable_digest("own_net:make", "w.safetensors")
    return dataclasses.replace(whole, victim_state="w.safetensors", victim_digest=digest)


def test_an_episode_with_an_own_victim(own_scene: SceneConfig, here: Path) -> None:
    store = ArtifactStore(Storage(here / "store"))
    scene = prepare(own_scene, store, device=torch.device("cpu"))
    assert scene.split.n_classes == 10
    record = run_episode(
        EpisodeConfig(
            scene=own_scene, defense="tail-noise", defense_config=DEFENSES["tail-noise"](),
            attack="passive", attack_config=ATTACKS["passive"],
        ),
        scene,
    )  # fmt: skip
    assert record["status"] == "ok"
    assert record["victim"] == f"own_net:make@{own_scene.victim_digest}"
    assert record["model_accuracy"] > 0.6
    assert not [name for name in store.storage.names("artifacts") if "/victim-" in name]  # none was trained


def test_artifacts_of_two_classifiers_never_mix(own_scene: SceneConfig, here: Path) -> None:
    scene = prepare(own_scene, ArtifactStore(Storage(here / "store")), device=torch.device("cpu"))
    spec = scene.spec()
    assert spec["scene"]["victim_digest"] == own_scene.victim_digest
    assert not {"dataset", "victim", "victim_state"} & set(spec["scene"])  # paths do not matter
    with pytest.raises(ConfigError, match=r"is not the study's: digest .* expected"):
        prepare(dataclasses.replace(own_scene, victim_digest="0" * 16), scene.store)


def test_what_an_own_victim_cannot_be(own_scene: SceneConfig) -> None:
    with pytest.raises(ConfigError, match="retrains the victim"):
        EpisodeConfig(
            scene=own_scene, defense="mid", defense_config=DEFENSES["mid"](),
            attack="passive", attack_config=ATTACKS["passive"],
        )  # fmt: skip
    with pytest.raises(ConfigError, match="depends on the seed"):
        dataclasses.replace(own_scene, dataset="olivetti", auxiliary="disjoint")
    with pytest.raises(ConfigError, match="victim_digest"):
        dataclasses.replace(own_scene, victim_digest=None)
    with pytest.raises(ConfigError, match="no own victim"):
        SceneConfig(victim_state="w.pt")
