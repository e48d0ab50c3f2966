"""Keyed randomness against a 64-bit reference in plain Python, and against the distributions it claims."""

import hashlib
import math
import random

import numpy as np
import pytest
import scipy.stats
import torch
import torch.nn.functional as F

from mipoison.models.classifier import ClassifierConfig
from mipoison.randomness import QueryRandomness, _splitmix64, content_keys, generator, role_seed
from mipoison.scene import Scene, SceneConfig, prepare
from mipoison.storage.artifacts import ArtifactStore
from mipoison.storage.files import Storage
from mipoison.training import seeded, train

MASK = (1 << 64) - 1


def splitmix64(x: int) -> int:
    """Steele, Lea & Flood 2014, on Python's own integers."""
    x = (x + 0x9E3779B97F4A7C15) & MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def images(n: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(n, 1, 4, 4, generator=generator(seed, "test images"))


def draw(keys_N: torch.Tensor, width: int = 6, stream: str = "s") -> tuple[torch.Tensor, torch.Tensor]:
    rng = QueryRandomness(keys_N)
    return rng.uniform(width, stream), rng.normal(width, stream)


# ----------------------------------------------------------------------------------------------- splitmix


def test_splitmix_matches_plain_python() -> None:
    words = [0, 1, MASK, 1 << 63, (1 << 63) - 1, *(random.Random(7).getrandbits(64) for _ in range(500))]
    signed = torch.tensor([w - (1 << 64) if w >> 63 else w for w in words], dtype=torch.int64)
    assert [int(v) & MASK for v in _splitmix64(signed)] == [splitmix64(w) for w in words]


def test_splitmix_first_value_of_the_published_generator() -> None:
    assert splitmix64(0) == 0xE220A8397B1DCDAF  # Vigna's reference implementation, seed 0
    assert int(_splitmix64(torch.tensor([0]))[0]) & MASK == 0xE220A8397B1DCDAF


def test_uniform_matches_plain_python() -> None:
    keys = content_keys(images(5), b"secret")
    salt = role_seed(0, "stream", "s")
    for i, key in enumerate(keys.tolist()):
        for j in range(4):
            bits = splitmix64(splitmix64(key & MASK) ^ splitmix64((salt + j) & MASK))
            assert float(QueryRandomness(keys).uniform(4, "s")[i, j]) == ((bits >> 11) + 0.5) * 2.0**-53


# ----------------------------------------------------------------------------- what the numbers depend on


def test_same_query_same_numbers_in_any_batch_and_order() -> None:
    x = images(40)
    whole = draw(content_keys(x, b"secret"))
    order = torch.randperm(40, generator=generator(1, "order"))
    for full, shuffled in zip(whole, draw(content_keys(x[order], b"secret")), strict=True):
        assert torch.equal(shuffled, full[order])
    for i in (0, 17, 39):
        for full, alone in zip(whole, draw(content_keys(x[i : i + 1], b"secret")), strict=True):
            assert torch.equal(alone[0], full[i])
    for full, part in zip(whole, draw(content_keys(x, b"secret")[10:20]), strict=True):
        assert torch.equal(part, full[10:20])


def test_indexing_takes_the_rows() -> None:
    rng = QueryRandomness(content_keys(images(9), b"k"))
    mask = torch.tensor([True, False, True] * 3)
    assert len(rng[mask]) == 6
    assert torch.equal(rng[mask].normal(3, "s"), rng.normal(3, "s")[mask])
    assert torch.equal(rng[2:5].normal(3, "s"), rng.normal(3, "s")[2:5])


@pytest.mark.parametrize("kind", ["uniform", "normal"])
def test_a_number_depends_on_key_stream_and_column_only(kind: str) -> None:
    rng = QueryRandomness(content_keys(images(9), b"k"))
    narrow, wide = getattr(rng, kind)(3, "s"), getattr(rng, kind)(5, "s")
    assert torch.equal(narrow, wide[:, :3])


def test_secret_asked_count_and_content_change_the_keys() -> None:
    x = images(50)
    plain = content_keys(x, b"secret")
    variants = [
        plain,
        content_keys(x, b"secres"),
        content_keys(x, b""),
        content_keys(x, b"secret", [0] * 50),
        content_keys(x, b"secret", [1] * 50),
        content_keys(1 - x, b"secret"),
    ]
    assert len({int(k) for v in variants for k in v}) == 50 * len(variants)
    assert torch.equal(plain, content_keys(x.clone(), b"secret"))
    assert plain.dtype == torch.int64


def test_keys_are_keyed_blake2b_of_the_8_bit_image() -> None:
    x = images(3)
    pixels = (x * 255).round().to(torch.uint8).numpy()
    for i, key in enumerate(content_keys(x, b"secret", [0, 1, 300])):
        message = pixels[i].tobytes() + [0, 1, 300][i].to_bytes(8, "big")
        reference = hashlib.blake2b(message, digest_size=8, key=b"secret").digest()
        assert int(key) & MASK == int.from_bytes(reference, "big")


def test_a_change_below_the_8_bit_grid_draws_nothing_new() -> None:
    x = (images(10) * 255).round() / 255
    assert torch.equal(content_keys(x + 1e-4, b"s"), content_keys(x, b"s"))
    assert not (content_keys((x + 1 / 255).clamp(0, 1), b"s") == content_keys(x, b"s")).any()


def test_off_the_8_bit_grid_a_small_change_draws_anew() -> None:
    """Of 256 pixels off the grid some lie within 1e-4 of the edge of a step: 1 - (1 - 1e-4 * 255) ** 256."""
    x = torch.rand(300, 1, 16, 16, generator=generator(0, "off the grid")) * 0.99
    anew = float((content_keys(x + 1e-4, b"s") != content_keys(x, b"s")).double().mean())
    assert anew == pytest.approx(1 - (1 - 1e-4 * 255) ** 256, abs=0.02)
    stored = (x * 255).round() / 255  # its 8-bit file is the same image
    assert torch.equal(content_keys(stored, b"s"), content_keys(x, b"s"))


def test_keys_leave_the_image_and_cope_with_none() -> None:
    x = images(4)
    before = x.clone()
    content_keys(x, b"s")
    assert torch.equal(x, before)
    empty = content_keys(x[:0], b"s")
    assert empty.shape == (0,)
    assert QueryRandomness(empty).normal(3, "s").shape == (0, 3)


# ------------------------------------------------------------------------------------------ distributions


def many() -> QueryRandomness:
    return QueryRandomness(torch.arange(20_000, dtype=torch.int64))  # consecutive keys: the hardest case


def test_uniform_distribution() -> None:
    u = many().uniform(5, "s").numpy()
    assert u.dtype == np.float64
    assert u.min() > 0
    assert u.max() < 1
    for column in u.T:
        assert scipy.stats.kstest(column, "uniform").pvalue > 1e-4
    assert scipy.stats.kstest(u[:1000].ravel(), "uniform").pvalue > 1e-4


def test_normal_distribution() -> None:
    z = many().normal(5, "s").numpy()
    for column in z.T:
        assert scipy.stats.kstest(column, "norm").pvalue > 1e-4
    n = z.size
    assert abs(z.mean()) < 4 / math.sqrt(n)
    assert abs(z.var() - 1) < 4 * math.sqrt(2 / n)
    assert abs((z**3).mean()) < 4 * math.sqrt(15 / n)
    assert abs((z**4).mean() - 3) < 4 * math.sqrt(96 / n)


def test_columns_rows_and_streams_are_independent() -> None:
    rng = many()
    a, b = rng.normal(4, "one").numpy(), rng.normal(4, "two").numpy()
    correlation = np.corrcoef(np.hstack([a, b, a**2, b**2]).T)
    limit = 5 / math.sqrt(len(a))
    assert np.abs(correlation - np.eye(16)).max() < limit
    lagged = np.corrcoef(a[:-1].T, a[1:].T)[:4, 4:]
    assert np.abs(lagged).max() < limit
    assert not np.isin(rng.uniform(4, "one").numpy(), rng.uniform(4, "two").numpy()).any()


# --------------------------------------------------------------------------------------- role generators


def test_roles_and_seeds_have_their_own_generators() -> None:
    roles = [
        (0, "victim"),
        (0, "evaluator"),
        (1, "victim"),
        (0, "victim", "init"),
        (0, "victiminit"),
        (0, "victim", 1),
    ]
    seeds = [role_seed(seed, *role) for seed, *role in roles]
    assert len(set(seeds)) == len(roles)
    assert all(0 <= s < 1 << 63 for s in seeds)
    draws = [torch.rand(1000, generator=generator(seed, *role)) for seed, *role in roles]
    for i, a in enumerate(draws):
        for b in draws[:i]:
            assert abs(float(torch.corrcoef(torch.stack([a, b]))[0, 1])) < 0.16
    assert torch.equal(draws[0], torch.rand(1000, generator=generator(0, "victim")))


def test_role_seed_is_pinned() -> None:
    digest = hashlib.sha256(b"mipoison\x1f3\x1fvictim\x1finit").digest()
    assert role_seed(3, "victim", "init") == int.from_bytes(digest[:8], "big") >> 1


# -------------------------------------------------------------------------------- no global random state


def global_states() -> tuple[bytes, object, bytes]:
    numpy_state = np.random.get_state()  # noqa: NPY002
    return torch.get_rng_state().numpy().tobytes(), random.getstate(), numpy_state[1].tobytes()  # type: ignore[index]


def test_training_with_dropout_and_seeded_init_leave_the_global_state() -> None:
    before = global_states()
    rng = generator(0, "test")
    with seeded(rng, torch.device("cpu")):
        model = ClassifierConfig(width=2, hidden=4).make((1, 16, 16), 2)
    x, y = torch.rand(12, 1, 16, 16, generator=rng), torch.arange(12) % 2
    train(model, x, y, F.cross_entropy, steps=3, batch=4, lr=1e-3, rng=rng)
    content_keys(x, b"s")
    QueryRandomness(content_keys(x, b"s")).normal(3, "s")
    assert global_states() == before


def test_the_global_state_is_restored_after_an_error() -> None:
    def fail() -> None:
        with seeded(generator(0), torch.device("cpu")):
            torch.rand(3)
            raise ZeroDivisionError

    before = global_states()
    with pytest.raises(ZeroDivisionError):
        fail()
    assert global_states() == before


def test_preparing_a_scene_leaves_the_global_state(tiny_config: SceneConfig, tiny_scene: Scene) -> None:
    before = global_states()
    prepare(tiny_config, tiny_scene.store, device=torch.device("cpu"))
    assert global_states() == before


def test_building_a_substitute_leaves_the_global_state(tiny_scene: Scene) -> None:
    from mipoison.models.inversion import SubstituteConfig

    before = global_states()
    tiny_scene.substitute(SubstituteConfig())
    assert global_states() == before


def test_results_do_not_depend_on_the_global_state(
    tiny_config: SceneConfig, tiny_scene: Scene, tmp_path
) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(12345)
        again = prepare(tiny_config, ArtifactStore(Storage(tmp_path)), device=torch.device("cpu"))
    for part, clean in tiny_scene.clean.items():
        assert torch.equal(again.clean[part], clean)
