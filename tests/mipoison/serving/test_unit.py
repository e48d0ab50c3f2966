"""Fitted units: answers survive saving and loading, in another process too; damage is refused."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mipoison.config import ConfigError, digest
from mipoison.defenses import DEFENSES, retraining
from mipoison.defenses.lpa_amortised import LPAAmortisedConfig
from mipoison.deployment import deploy
from mipoison.scene import Scene
from mipoison.service import DefendedService
from mipoison.serving.from_scene import save_victim
from mipoison.serving.protect import fit_unit
from mipoison.serving.unit import SETTINGS, TENSORS, Unit, UnitError, load_unit, unit_sha256
from mipoison.simplex import label_of
from tests.mipoison.serving.helpers import SECRET, UNITS, rounding, served

FRESH = ["noise-fresh"]


def test_only_defenses_that_retrain_are_no_units() -> None:
    assert retraining() == ["mid", "dp-sgd"]


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_answers_as_the_study_measured(
    name: str, units: dict[str, Unit], tiny_scene: Scene, queries: Tensor
) -> None:
    """The same scene, secret and request through the study's own service: bit for bit."""
    study = deploy(tiny_scene, name, DEFENSES[name]())
    service = DefendedService(
        tiny_scene.victim, study.defense, secret=SECRET, n_classes=tiny_scene.split.n_classes,
        device=tiny_scene.device,
    )  # fmt: skip
    released = units[name].wrap(tiny_scene.victim, secret=SECRET)(queries)
    if name in FRESH:
        assert not torch.equal(released, service.release(queries))
    else:
        assert torch.equal(released, service.release(queries))


@pytest.mark.parametrize("name", UNITS)
def test_saved_and_loaded_units_answer_alike(
    name: str, units: dict[str, Unit], saved: Path, tiny_scene: Scene, queries: Tensor
) -> None:
    unit, loaded = units[name], load_unit(saved / name, device="cpu")
    assert (loaded.name, loaded.config, loaded.keyed) == (unit.name, unit.config, unit.keyed)
    before = unit.wrap(tiny_scene.victim, secret=SECRET)(queries)
    after = loaded.wrap(tiny_scene.victim, secret=SECRET)(queries)
    assert before.shape == (21, tiny_scene.split.n_classes)
    if name in FRESH:
        assert not torch.equal(before, after)
        assert torch.allclose(before, after, atol=2 * unit.config.budget)  # type: ignore[attr-defined]
    else:
        assert torch.equal(before, after)


def aligned(scene: Scene) -> nn.Module:
    """The victim with weights where the allocator puts them: the last bit of a product depends on that."""
    victim = scene.config.classifier("victim").make(scene.split.image_shape, scene.split.n_classes)
    victim.load_state_dict(scene.victim.state_dict())
    return victim.eval()


def test_loaded_units_answer_alike_in_a_fresh_process(
    units: dict[str, Unit], saved: Path, tiny_scene: Scene, queries: Tensor, tmp_path: Path
) -> None:
    victim = aligned(tiny_scene)
    queries = queries.flatten().view(queries.shape)  # grey images of a split have the strides of colour last
    save_file({k: v.contiguous() for k, v in victim.state_dict().items()}, tmp_path / "v.safetensors")
    save_file({"x": queries.contiguous()}, tmp_path / "x.safetensors")
    script = f"""
import torch
from safetensors.torch import load_file, save_file
from mipoison.serving.protect import load_unit
from mipoison.scene import SceneConfig
torch.set_num_threads(1)
victim = SceneConfig(victim_width=8, victim_hidden=16).classifier("victim").make((1, 16, 16), 5)
victim.load_state_dict(load_file({str(tmp_path / "v.safetensors")!r}))
x = load_file({str(tmp_path / "x.safetensors")!r})["x"].clone()
answers = {{}}
for name in {[n for n in UNITS if n not in FRESH]!r}:
    unit = load_unit({str(saved)!r} + "/" + name, device="cpu")
    answers[name] = unit.wrap(victim, secret={SECRET!r})(x)
save_file(answers, {str(tmp_path / "out.safetensors")!r})
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
    answers = load_file(tmp_path / "out.safetensors")
    assert len(answers) == len(UNITS) - len(FRESH)
    for name, released in answers.items():
        before = units[name].wrap(victim, secret=SECRET)(queries)
        assert torch.allclose(released, before, atol=rounding(name), rtol=0), name


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("noise", {"budget": 0.1}),  # keyed
        ("noise", {"budget": 0.1, "randomness": "fresh"}),
        ("lfp", {"picks": "request", "ratio": 0.3}),  # picked and aligned by request
        ("lpa", {"scope": "batch"}),  # aligned by chunk
        ("rounding", {}),  # draws nothing
    ],
)
def test_what_is_deployed_is_what_was_measured(
    name: str,
    changes: dict[str, object],
    units: dict[str, Unit],
    tiny_scene: Scene,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A scene's victim behind a unit, and the service of a study: the same vectors, over several chunks."""
    study = deploy(tiny_scene, name, DEFENSES[name](**changes))
    unit = dataclasses.replace(units[name], config=study.config, defense=study.defense)
    x = torch.cat([part.x_NCHW for part in (tiny_scene.split.private_train, tiny_scene.split.attack_train)])
    assert len(x) > 128
    service = DefendedService(
        tiny_scene.victim, study.defense, secret=SECRET, n_classes=tiny_scene.split.n_classes,
        device=tiny_scene.device,
    )  # fmt: skip
    # A fresh unit draws from the system's entropy, another number for each image: here that of the service.
    monkeypatch.setattr("os.urandom", lambda n: SECRET)
    meant = service.release(x, asked_N=list(range(len(x))))
    assert torch.equal(unit.wrap(tiny_scene.victim, secret=SECRET)(x), meant)
    assert not torch.equal(meant, service.clean(x))


def test_a_unit_of_the_earlier_version_still_answers() -> None:
    """``earlier_unit/`` was saved, and answered so, before defenses declared whether they draw."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 5))
    for p in model.parameters():
        p.data = (torch.arange(p.numel()).reshape(p.shape) * 5 % 7 - 3) / 4
    x = (torch.arange(3 * 16).reshape(3, 1, 4, 4) * 37 % 256) / 255
    unit = load_unit(Path(__file__).parent / "earlier_unit", device="cpu")
    assert unit.keyed
    meant = [
        [0.188508, 0.317853, 0.029973, 0.241681, 0.221985],
        [0.093521, 0.178185, 0.09226, 0.0, 0.636034],
        [0.118746, 0.224842, 0.41921, 0.035458, 0.201744],
    ]
    torch.testing.assert_close(unit.wrap(model, secret=SECRET)(x), torch.tensor(meant), rtol=0, atol=2e-6)


def test_a_unit_saved_with_an_earlier_measure_of_drawing(tmp_path: Path) -> None:
    """Of two classes tail noise moves nothing: earlier versions saw that at fitting and saved ``keyed``
    false; such a unit still needs no secret. What draws in spite of its file is refused."""
    x = torch.rand(20, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    for n_classes in (2, 3):
        folder = tmp_path / str(n_classes)
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(16, n_classes))
        fit_unit(model, private=x, public=x, defense="tail-noise", device="cpu").save(folder)
        rewritten(folder, keyed=False)
        protected = load_unit(folder, device="cpu").wrap(model)
        if n_classes == 2:
            assert torch.allclose(protected(x), model(x).softmax(1), atol=1e-6)
        else:
            with pytest.raises(ConfigError, match="TailNoise draws keyed random numbers: give a secret"):
                protected(x)


def test_which_units_draw_keyed_randomness(units: dict[str, Unit]) -> None:
    """As the defense declares, here against what the settings say."""
    drawing = {name for name, unit in units.items() if unit.keyed}
    says = {name for name in UNITS if getattr(DEFENSES[name](), "randomness", "") == "keyed"}
    says |= {"robust-privacy", "stealthy-shield"}  # by other words: noise, label
    assert drawing == says - {"advexa"}  # its settings say that nothing is drawn


@pytest.mark.parametrize("name", UNITS)
def test_keyed_units_want_a_secret_and_keep_none(
    name: str, units: dict[str, Unit], saved: Path, tiny_scene: Scene, queries: Tensor
) -> None:
    loaded = load_unit(saved / name, device="cpu")
    if not loaded.keyed:
        assert loaded.wrap(tiny_scene.victim)(queries).shape == (21, tiny_scene.split.n_classes)
        return
    with pytest.raises(ConfigError, match=r"16 to 64 bytes.*MIPOISON_SECRET.*secret=\.\.\."):
        loaded.wrap(tiny_scene.victim)
    with pytest.raises(ConfigError, match=r"load_unit takes no secret.*wrap\(model, secret=") as given:
        load_unit(saved / name, device="cpu", secret=SECRET)  # type: ignore[arg-type]
    assert SECRET.decode() not in str(given.value)
    for bad in (b"short", b"x" * 65):
        with pytest.raises(ConfigError, match="must be 16 to 64") as caught:
            loaded.wrap(tiny_scene.victim, secret=bad)
        assert "x" * 9 not in str(caught.value)
        assert "short" not in str(caught.value)
    first, second = (
        loaded.wrap(tiny_scene.victim, secret=s)(queries) for s in (SECRET, b"another secret, 16")
    )
    # lfp touches a twentieth of a request, and labels of sure vectors are drawn alike: none may differ here
    if name not in ("lfp", "stealthy-shield"):
        assert not torch.equal(first, second)
    assert not any(SECRET in path.read_bytes() for path in (saved / name).iterdir())


@pytest.mark.parametrize("name", UNITS)
def test_no_answer_depends_on_other_requests(
    name: str, units: dict[str, Unit], tiny_scene: Scene, queries: Tensor
) -> None:
    """Three requests at once and one by one; and, but for coupling defenses, each query alone."""
    if name in FRESH:
        pytest.skip("draws anew each time")
    protected = units[name].wrap(tiny_scene.victim, secret=SECRET)
    requests = list(queries.split([1, 13, 7]))
    together, alone = protected.answer(requests), [protected(x) for x in requests]
    if getattr(units[name].config, "search", "") == "restarts":
        # Which of two near optima is kept hangs on the last bits, which the number of queries changes.
        clean = torch.softmax(tiny_scene.victim(queries), 1).detach()
        for released in (together, alone):
            assert (torch.cat(released) - clean).norm(dim=1).max() <= units[name].config.budget * (1 + 1e-4)
            assert torch.equal(label_of(torch.cat(released)), label_of(clean))
        return
    for a, b in zip(together, alone, strict=True):
        assert torch.allclose(a, b, atol=rounding(name), rtol=0)
    if not units[name].defense.couples:
        single = torch.cat([protected(x[None]) for x in queries])
        assert torch.allclose(torch.cat(together), single, atol=rounding(name), rtol=0)


def test_a_request_longer_than_a_chunk(units: dict[str, Unit], tiny_scene: Scene) -> None:
    x = torch.cat([tiny_scene.split.private_train.x_NCHW] * 3)[:150]
    for name in ("lpa-amortised", "lfp", "rounding"):
        released = units[name].wrap(tiny_scene.victim, secret=SECRET)(x)
        assert released.shape == (150, tiny_scene.split.n_classes)
        assert torch.allclose(released.sum(1), torch.ones(150), atol=1e-5)
        assert units[name].wrap(tiny_scene.victim, secret=SECRET)(x[:0]).shape == (
            0,
            tiny_scene.split.n_classes,
        )


def test_fresh_units_differ_each_time(units: dict[str, Unit], tiny_scene: Scene, queries: Tensor) -> None:
    protected = units["noise-fresh"].wrap(tiny_scene.victim)
    twice = protected(torch.cat([queries, queries]))
    assert not torch.equal(twice[:21], twice[21:])
    assert not torch.equal(protected(queries), protected(queries))


# ------------------------------------------------------------------------------------------ damage


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    for name in (SETTINGS, TENSORS):
        (tmp_path / name).write_bytes((saved / "lpa" / name).read_bytes())
    return tmp_path


@pytest.mark.parametrize("name", [SETTINGS, TENSORS])
@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "remove"])
def test_damaged_files_are_refused(folder: Path, name: str, damage: str) -> None:
    data = (folder / name).read_bytes()
    middle = len(data) // 2
    if damage == "remove":
        (folder / name).unlink()
    else:
        flipped = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        (folder / name).write_bytes({"truncate": data[:-9], "flip": flipped, "empty": b""}[damage])
    with pytest.raises(UnitError) as caught:
        load_unit(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("old", ['"budget": 0.01', '"keyed": true', '"n_classes": 5'])
def test_altered_settings_are_refused(folder: Path, old: str) -> None:
    text = (folder / SETTINGS).read_text()
    assert old in text
    (folder / SETTINGS).write_text(text.replace(old, old.split(":")[0] + ": 1"))
    with pytest.raises(UnitError, match="does not match its hash"):
        load_unit(folder)


def rewritten(folder: Path, **changes: object) -> None:
    about = json.loads((folder / SETTINGS).read_text()) | changes
    about.pop("sha256")
    (folder / SETTINGS).write_text(json.dumps(about | {"sha256": digest(about)}))


def test_other_versions_defenses_and_tensors_are_refused(folder: Path, saved: Path) -> None:
    rewritten(folder, version=2)
    with pytest.raises(UnitError, match=r"version 2, this package reads mipoison-unit version 1"):
        load_unit(folder)
    rewritten(folder, version=1, defense="lpaa")
    with pytest.raises(ConfigError, match=r"did you mean 'lpa'"):
        load_unit(folder)
    rewritten(folder, defense="mid")
    with pytest.raises(ConfigError, match="unknown defense 'mid'"):
        load_unit(folder)
    rewritten(folder, defense="lpa-flipped", config=DEFENSES["lpa-flipped"]().flat())  # keeps the same
    loaded = load_unit(folder)
    assert loaded.name == "lpa-flipped"
    rewritten(folder, defense="mad", config=DEFENSES["mad"]().flat())
    with pytest.raises(UnitError, match="is not what mad keeps"):
        load_unit(folder)
    rewritten(folder, defense="purifier", config=DEFENSES["purifier"]().flat())
    with pytest.raises(UnitError, match="is not what purifier keeps"):
        load_unit(folder)
    rewritten(folder, defense="rounding", config=DEFENSES["rounding"]().flat())
    with pytest.raises(UnitError, match="is not what rounding keeps"):
        load_unit(folder)


def test_a_folder_without_a_unit(tmp_path: Path) -> None:
    with pytest.raises(UnitError, match=r"no unit\.json"):
        load_unit(tmp_path / "nothing")


# ------------------------------------------------------------------------------------ what is refused


def test_another_classifier_is_refused(units: dict[str, Unit], tiny_scene: Scene, queries: Tensor) -> None:
    other = copy.deepcopy(tiny_scene.victim)
    with torch.no_grad():
        next(other.parameters()).add_(0.01)
    with pytest.raises(ConfigError, match="fitted for another classifier"):
        units["rounding"].wrap(other)
    assert len(units["rounding"].wrap(other, any_model=True)(queries)) == 21


def test_a_protected_classifier_neither_pickles_nor_shows_its_secret(
    units: dict[str, Unit], tiny_scene: Scene
) -> None:
    protected = units["lpa"].wrap(tiny_scene.victim, secret=SECRET)
    with pytest.raises(TypeError, match="holds a secret"):
        pickle.dumps(protected)
    with pytest.raises(TypeError, match="holds a secret"):
        copy.deepcopy(protected)
    assert SECRET.decode() not in repr(protected)
    assert all(isinstance(v, Tensor) for v in protected.state_dict().values())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x: x[:, :, :8], "expected images"),
        (lambda x: x[0], "expected images"),
        (lambda x: (x * 255).to(torch.uint8), "float in"),
        (lambda x: x * 2, r"pixels in \[0, 1\]"),
        (lambda x: x / 0, "finite"),
    ],
)
def test_queries_that_are_no_such_images(
    units: dict[str, Unit], tiny_scene: Scene, queries: Tensor, change: object, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        units["rounding"].wrap(tiny_scene.victim)(change(queries))  # type: ignore[operator]


def test_the_amortised_unit_keeps_its_generator_alone(units: dict[str, Unit]) -> None:
    assert all(name.startswith("generator.") for name in units["lpa-amortised"].defense.state())
    assert isinstance(units["lpa-amortised"].config, LPAAmortisedConfig)


@pytest.mark.parametrize("name", UNITS)
def test_answers_do_not_depend_on_the_callers_context(
    name: str, units: dict[str, Unit], tiny_scene: Scene, queries: Tensor
) -> None:
    protected = units[name].wrap(tiny_scene.victim, secret=SECRET)
    with served():
        released = protected(queries.clone())
    assert not released.is_inference()
    if name not in FRESH:
        assert torch.allclose(released, protected(queries), atol=rounding(name))


def test_the_wrapped_module_among_others(units: dict[str, Unit], tiny_scene: Scene, queries: Tensor) -> None:
    """After what is done to modules it answers alike, or says why not; the user's own never changes."""
    own = copy.deepcopy(tiny_scene.victim).train()
    protected = units["pgd"].wrap(own, secret=SECRET)
    meant = protected(queries)
    assert protected.train().to("cpu").float().eval()(queries).equal(meant)
    assert torch.allclose(protected(queries.numpy()), meant, atol=rounding("pgd"))
    assert torch.allclose(protected(list(queries)), meant, atol=rounding("pgd"))
    assert all(m.training for m in own.modules())
    assert {p.dtype for p in own.parameters()} == {torch.float32}
    assert list(protected.state_dict()) == [f"model.{name}" for name in own.state_dict()]
    for change in (protected.half, protected.double, protected.bfloat16):
        with pytest.raises(ConfigError, match=r"answers in float32, not \w+: .*protected\(x\)"):
            change()
    with pytest.raises(ConfigError, match="'cuda'"):
        protected.to("gpu")
    with pytest.raises(ConfigError, match="not supported"):
        protected.to("meta")
    assert protected(queries).equal(meant)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", ["lpa", "rounding"])
def test_a_protected_classifier_moves(
    name: str, units: dict[str, Unit], tiny_scene: Scene, queries: Tensor
) -> None:
    protected = units[name].wrap(tiny_scene.victim, secret=SECRET)
    meant = protected(queries)
    moved = protected.to("cuda")(queries.cuda())
    assert moved.is_cuda
    assert (moved.cpu() - meant).abs().max() < 1e-2
    assert {p.device.type for p in tiny_scene.victim.parameters()} == {"cpu"}
    assert units[name].wrap(tiny_scene.victim, secret=SECRET)(queries).equal(meant)


def test_a_unit_is_not_overwritten_unasked(units: dict[str, Unit], tmp_path: Path) -> None:
    units["rounding"].save(tmp_path / "unit")
    before = (tmp_path / "unit" / SETTINGS).read_bytes()
    with pytest.raises(ConfigError, match=r"unit holds a unit already: .*overwrite=True"):
        units["label-only"].save(tmp_path / "unit")
    assert (tmp_path / "unit" / SETTINGS).read_bytes() == before
    units["label-only"].save(tmp_path / "unit", overwrite=True)
    assert load_unit(tmp_path / "unit", device="cpu").name == "label-only"


def test_what_lay_beside_the_replaced_unit_goes_with_it(
    units: dict[str, Unit], tiny_scene: Scene, tmp_path: Path
) -> None:
    """Else the next server would answer with another setting's label, or look for another's classifier."""
    folder = tmp_path / "unit"
    units["rounding"].save(folder)
    save_victim(tiny_scene.victim, folder)
    (folder / "label.json").write_text('{"trial": "t0001-rounding"}')
    (folder / "notes.txt").write_text("the user's own")
    units["label-only"].save(folder, overwrite=True)
    assert {path.name for path in folder.iterdir()} == {"notes.txt", TENSORS, SETTINGS}


def test_the_digest_of_a_unit_is_that_of_its_settings(units: dict[str, Unit], tmp_path: Path) -> None:
    units["rounding"].save(tmp_path / "unit")
    found = unit_sha256(tmp_path / "unit")
    assert found == hashlib.sha256((tmp_path / "unit" / SETTINGS).read_bytes()).hexdigest()
    units["label-only"].save(tmp_path / "unit", overwrite=True)
    assert unit_sha256(tmp_path / "unit") != found
    with pytest.raises(UnitError, match=r"no unit\.json"):
        unit_sha256(tmp_path)
