"""What a resumed study adopts: stored values, of fitting types, where the command line says nothing."""

from __future__ import annotations

import dataclasses

import pytest

from mipoison.config import ConfigError
from study.settings.adoption import adopted, given_names, named_study
from study.settings.study_settings import IDENTITY, Arguments, StudySettings


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--resume first --trials 3", "--resume --name first --trials 3"),
        ("--resume=first", "--resume --name first"),
        ("--resume --trials 3", "--resume --trials 3"),
        ("--trials 3 --resume", "--trials 3 --resume"),
        ("--name first --resume", "--name first --resume"),
    ],
)
def test_a_study_is_named_beside_resume(words: str, expected: str) -> None:
    assert named_study(words.split()) == expected.split()


def test_fields_that_a_command_line_sets() -> None:
    words = ["--decoder-steps", "3", "--seeds=2", "--no-screen", "--defenses", "lpa", "lfp"]
    assert {"decoder_steps", "seeds", "screen", "defenses"} <= given_names(words)


def test_what_is_left_out_is_as_stored_and_what_is_given_stays() -> None:
    theirs = StudySettings(
        seeds=2, defenses=("lpa",), attackers=("class-mean", "ridge"), limit=100, screen=False
    )
    asked = Arguments(seeds=4, trials=9)
    found = adopted(asked, ["--resume", "--seeds", "4", "--trials", "9"], theirs.identity())
    assert (found.seeds, found.trials) == (4, 9)
    assert found.victim_augment == "none"  # as the data had it then
    for f in (f for group in IDENTITY for f in dataclasses.fields(group)):
        if f.name not in ("seeds", "victim_augment"):
            assert getattr(found, f.name) == getattr(theirs, f.name), f.name
    assert found.checked().changes(theirs.identity()) == ["seeds: 2 -> 4"]


@pytest.mark.parametrize(
    "stored",
    [
        {"limit": "many"},
        {"seeds": True},
        {"seeds": None},
        {"scale": 3},
        {"scale": "huge"},
        {"defenses": [1]},
        {"screen": 1},
        {"victim_transforms": "code:that_runs"},
    ],
)
def test_values_of_other_types_are_damage(stored: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"study\.json is damaged"):
        adopted(Arguments(), [], stored)


def test_a_classifier_of_the_user_s_own_is_given_again() -> None:
    stored = {"victim_digest": "ab" * 8, "seeds": 2}
    with pytest.raises(ConfigError, match=r"give it with --victim \(and --victim-state\)"):
        adopted(Arguments(), ["--resume"], stored)
    assert adopted(Arguments(victim="net:make"), ["--resume", "--victim", "net:make"], stored).seeds == 2
    assert adopted(Arguments(), ["--resume"], {"victim_digest": None, "seeds": 2}).seeds == 2


def test_a_folder_of_images_is_named_by_the_user() -> None:
    stored = {"dataset": "folder:/home/somebody/pictures", "image_size": 16}
    with pytest.raises(ConfigError, match=r"give it with --dataset"):
        adopted(Arguments(), ["--resume"], stored)
    mine = Arguments(dataset="folder:pictures")
    found = adopted(mine, ["--resume", "--dataset", "folder:pictures"], stored)
    assert (found.dataset, found.image_size) == ("folder:pictures", 16)
