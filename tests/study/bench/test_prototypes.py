"""The table of prototypes: its numbers against slow ones, its lines, and what it refuses."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from mipoison.attacks.prototypes import PrototypeConfig
from mipoison.config import ConfigError
from mipoison.defenses.none import NoneConfig
from mipoison.defenses.rounding import RoundingConfig
from mipoison.deployment import deploy
from mipoison.models.classifier import confidence_vectors
from mipoison.randomness import generator
from mipoison.scene import Scene, scaled
from mipoison.scene_config import SceneConfig
from mipoison.service import MeteredOracle
from mipoison.storage.artifacts import ArtifactStore
from study.bench import prototypes
from study.bench.prototypes import HEAD, Row, expected_nearest, main, mean_row, measure, setting

CONFIG = PrototypeConfig(queries=150, components=8, starts=256)
ROW = Row(
    defense="none", seed=0, found=1.0, recognised=0.5, mean_recognised=0.8, error=0.02,
    mean_error=0.01, best_error=0.03, train=0.027, test=0.03, mean_train=0.04, mean_test=0.04,
    queries=100, equal=1.0,
)  # fmt: skip


@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_the_nearest_of_a_subset_by_enumeration(n: int) -> None:
    distance_n = torch.rand(n, generator=generator(n, "distances"))
    for m in range(1, n + 1):
        slow = np.mean([min(subset) for subset in itertools.combinations(distance_n.tolist(), m)])
        assert expected_nearest(distance_n, m) == pytest.approx(slow)
    for m in (0, n + 1):
        with pytest.raises(ValueError, match=f"m = {m}: must be between 1 and the {n} distances"):
            expected_nearest(distance_n, m)


def test_the_numbers_of_a_row_by_slow_loops(tiny_scene: Scene) -> None:
    service = deploy(tiny_scene, "none", NoneConfig()).service
    row, image_KD = measure(tiny_scene, service, "none", CONFIG)
    split = tiny_scene.split
    oracle = MeteredOracle(service.session(), split.n_classes)
    found = CONFIG.make().search(oracle, split.attack_train.x_NCHW, rng=generator(0, "prototypes"))
    assert row.queries == oracle.queries
    label_N = service.clean(split.attack_train.x_NCHW).argmax(1)
    numbers, right, mean_right, there = [], 0, 0, 0
    for k, one in enumerate(found.classes):
        own = [x for x, label in zip(split.attack_train.x_NCHW, label_N.tolist(), strict=True) if label == k]
        mean = torch.stack(own or [*split.attack_train.x_NCHW]).mean(0)
        mean_right += int(confidence_vectors(tiny_scene.evaluator, mean[None]).argmax()) == k
        if one is None:
            assert image_KD[k].isnan().all()
            continue
        there += 1
        assert torch.equal(image_KD[k], one.image_CHW.flatten())
        right += int(confidence_vectors(tiny_scene.evaluator, one.image_CHW[None]).argmax()) == k

        def mse(a: torch.Tensor, b: torch.Tensor) -> float:
            return float(np.mean((a.double().numpy() - b.double().numpy()) ** 2))

        train, test = (
            [x for x, y in zip(part.x_NCHW, part.y_N.tolist(), strict=True) if y == k]
            for part in (split.private_train, split.private_test)
        )
        center = torch.stack(train).double().mean(0)
        best = min(mse(x, center) for x in own or split.attack_train.x_NCHW)
        m = min(len(train), len(test))
        drawn = np.random.default_rng(k)
        near = []
        for image in (one.image_CHW, mean):
            for pool in (train, test):
                errors = np.array([mse(x, image) for x in pool])
                near.append(np.mean([drawn.choice(errors, m, replace=False).min() for _ in range(4000)]))
        numbers.append((mse(one.image_CHW, center), mse(mean, center), best, *near))
    assert there > 0
    assert row.mean_recognised == mean_right / split.n_classes
    assert (row.found, row.recognised) == (there / split.n_classes, right / split.n_classes)
    means = np.mean(numbers, axis=0)
    assert (row.error, row.mean_error, row.best_error) == pytest.approx(means[:3], rel=1e-5)
    assert (row.train, row.test, row.mean_train, row.mean_test) == pytest.approx(means[3:], rel=0.01)


def test_how_much_nearer_prototypes_are_by_hand() -> None:
    assert ROW.nearer == pytest.approx(0.1)
    assert dataclasses.replace(ROW, mean_train=0.036).nearer == pytest.approx(0.0)
    assert dataclasses.replace(ROW, train=None).nearer is None


def test_a_mean_is_missing_where_a_seed_is() -> None:
    found = mean_row([ROW, dataclasses.replace(ROW, seed=1, error=0.04, train=None, equal=0.0)])
    assert (found.seed, found.defense, found.equal) == (None, "none", 0.5)
    assert found.error == pytest.approx(0.03)
    assert found.train is None
    cells = dict(zip(HEAD, found.cells(), strict=True))
    assert cells["seed"] == "mean"
    assert cells["nearest train / test"] == "- / 0.0300"


def test_a_defense_with_knobs() -> None:
    assert setting("none") == ("none", NoneConfig())
    assert setting("rounding:decimals=1") == ("rounding", RoundingConfig(decimals=1))
    for text, said in (("roundin", "did you mean 'rounding'"), ("rounding:digits=1", "unknown knob")):
        with pytest.raises(ConfigError, match=said):
            setting(text)


def test_the_script_prints_equal_lines_where_labels_are_kept(
    tiny_scene: Scene, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[SceneConfig] = []

    def prepared(config: SceneConfig, store: ArtifactStore, *, data_root: Path | None) -> Scene:
        asked.append(config)
        return tiny_scene

    monkeypatch.setattr(prototypes, "prepare", prepared)
    defenses = ["none", "label-only", "rounding:decimals=1", "lfp:ratio=0.5,threshold=1,rounds=0"]
    words = ["--defenses", *defenses, "--seeds", "2", "--first-seed", "3", "--limit", "100"]
    small = ["--queries", "70", "--components", "4", "--storage", str(tmp_path), "--auxiliary", "disjoint"]
    assert main([*words, *small]) == 0
    assert asked == [scaled("digits", "quick", auxiliary="disjoint", seed=s, limit=100) for s in (3, 4)]
    out = capsys.readouterr().out
    conditions, *lines = out.splitlines()
    assert "digits, auxiliary disjoint, scale quick, 2 seeds from 3, cpu; 5 private classes" in conditions
    assert (
        "100 of the attacker; 4 components, at most 70 queries a class, spheres grow at 1 clear" in conditions
    )
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    assert table[0] == list(HEAD)
    rows = table[2:]
    assert [row[0] for row in rows] == defenses * 3
    assert [row[1] for row in rows[8:]] == ["mean"] * 4
    for start in (0, 4, 8):
        none, label_only, rounding, lfp = (row[2:] for row in rows[start : start + 4])
        assert none == label_only == rounding
        assert none[-1] == "1.00"
        assert lfp[-1] == "0.00"
    assert all(f"{defense}: nearer to training images by " in out for defense in defenses)


def test_the_script_prepares_its_scenes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--limit", "60", "--queries", "40", "--seeds", "1", "--defenses", "label-only"]
    assert main([*small, "--storage", str(tmp_path)]) == 0
    assert "60 private training" in capsys.readouterr().out
    assert any("victim" in str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--queries", "20"], "PrototypeConfig.queries = 20: must be between 33 and 1,000,000"),
        (["--defenses", "nothing"], "unknown defense 'nothing'"),
        (["--defenses", "none", "none"], "each named once"),
        (["--seeds", "0"], "seeds = 0"),
        (["--scale", "huge"], "unknown scale 'huge'"),
        (["--dataset", "digit"], "digits"),
    ],
)
def test_what_cannot_be_is_one_line_and_exit_code_2(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 1
    assert said in printed.err
