"""The four-way split: which image belongs to which part, and that it depends on nothing but its settings."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from mipoison.data.datasets import DataError, Kind, RawImages, load_dataset
from mipoison.data.splits import (
    AUXILIARY,
    PARTS,
    Auxiliary,
    Part,
    Split,
    describe,
    halves,
    make_split,
    plan_split,
)

SHARED = Path(os.environ.get("MIPOISON_TEST_DATA") or Path(__file__).parents[4] / "shared" / "data")


def real(name: str) -> Path:
    if not (SHARED / name).exists():
        pytest.skip(f"no {SHARED / name}: set MIPOISON_TEST_DATA to a folder that has {name}")
    return SHARED


def numbered(counts: list[int], *, kind: Kind = "identities", official: bool = False) -> RawImages:
    """Images of one pixel; what matters to a plan is the row number."""
    labels = np.random.default_rng(5).permutation(np.repeat(range(len(counts)), counts))
    images = np.zeros((len(labels), 1, 1, 1), np.uint8)
    return RawImages(images, labels, np.arange(len(labels)) % 3 == 0 if official else None, "faces", kind)


def parts_of(split: Split) -> dict[str, Part]:
    return {name: getattr(split, name) for name in PARTS}


def counts_of(labels_N: np.ndarray | torch.Tensor) -> list[int]:
    return np.unique(np.asarray(labels_N), return_counts=True)[1].tolist()


# -------------------------------------------------------------------------------------------- the plan


@pytest.mark.parametrize("auxiliary", AUXILIARY)
@pytest.mark.parametrize("official", [False, True])
@pytest.mark.parametrize("kind", ["classes", "identities"])
@pytest.mark.parametrize("seed", [0, 1])
def test_plan_is_a_partition(auxiliary: Auxiliary, official: bool, kind: Kind, seed: int) -> None:
    counts = np.random.default_rng(seed).integers(20, 60, 11).tolist()
    raw = numbered(counts, kind=kind, official=official)
    plan = plan_split(raw, auxiliary=auxiliary, seed=seed)
    rows = np.concatenate([plan.rows[part] for part in PARTS])
    assert len(np.unique(rows)) == len(rows)  # no image twice
    assert len(plan.private_ids) == 5
    if auxiliary == "disjoint":
        assert len(rows) == len(raw.labels_N)  # nothing lost
        assert sorted([*plan.private_ids, *plan.attack_ids]) == list(range(11))
    else:
        assert sorted(rows) == np.flatnonzero(np.isin(raw.labels_N, plan.private_ids)).tolist()
        assert plan.attack_ids.tolist() == plan.private_ids.tolist()
    for part in PARTS:
        ids = plan.private_ids if part.startswith("private") else plan.attack_ids
        assert set(raw.labels_N[plan.rows[part]]) == set(ids)
        if raw.official_test_N is not None:
            assert (raw.official_test_N[plan.rows[part]] == part.endswith("test")).all()
    if kind == "classes":
        assert plan.private_ids.tolist() == [0, 1, 2, 3, 4]


def test_plan_is_stratified() -> None:
    raw = numbered([5, 9, 10, 23, 100, 41], kind="classes")
    plan = plan_split(raw, auxiliary="disjoint", seed=0)
    sizes = {part: counts_of(raw.labels_N[plan.rows[part]]) for part in PARTS}
    assert sizes["private_test"] + sizes["attack_test"] == [1, 2, 2, 5, 20, 8]
    assert sizes["private_train"] + sizes["attack_train"] == [4, 7, 8, 18, 80, 33]
    raw = numbered([9, 9, 9, 30, 100, 51, *[10] * 6], kind="classes")
    plan = plan_split(raw, auxiliary="same", seed=0)
    for end in ("train", "test"):
        first, second = (raw.labels_N[plan.rows[f"{who}_{end}"]] for who in ("private", "attack"))
        assert max(abs(a - b) for a, b in zip(counts_of(first), counts_of(second), strict=True)) <= 1
        assert abs(len(first) - len(second)) <= 1


@pytest.mark.parametrize("auxiliary", AUXILIARY)
def test_limit(auxiliary: Auxiliary) -> None:
    raw = numbered([15, 200, 300, 20, 90, 90, 90, 90], kind="classes")
    whole = plan_split(raw, auxiliary=auxiliary, seed=0)
    smaller: dict[str, np.ndarray] = {part: np.empty(0, int) for part in PARTS}
    for limit in (4, 7, 30, 61, 62, 150, 10_000):
        plan = plan_split(raw, auxiliary=auxiliary, seed=0, limit=limit)
        for part in PARTS:
            quota = limit if part.endswith("train") else -(-limit // 4)
            rows = plan.rows[part]
            assert len(rows) == min(quota, len(whole.rows[part]))
            assert set(smaller[part]) <= set(rows) <= set(whole.rows[part])  # nested
            taken = np.bincount(raw.labels_N[rows], minlength=8)
            everything = np.bincount(raw.labels_N[whole.rows[part]], minlength=8)
            cut = taken[taken < everything]  # even: a class that was cut is within one of all
            assert not len(cut) or cut.min() >= taken.max() - 1
        smaller = plan.rows


def test_seed_draws_identities_rows_and_order() -> None:
    raw = numbered([12] * 20)
    plans = [plan_split(raw, auxiliary="disjoint", seed=seed) for seed in (0, 1, 2)]
    assert len({tuple(plan.private_ids) for plan in plans}) == 3
    raw = numbered([12] * 10, kind="classes")
    plans = [plan_split(raw, auxiliary="disjoint", seed=seed) for seed in (0, 1, 2)]
    for part in PARTS:
        assert len({frozenset(plan.rows[part].tolist()) for plan in plans}) == 3
        assert plans[0].rows[part].tolist() != sorted(plans[0].rows[part])
        assert (np.diff(raw.labels_N[plans[0].rows[part]]) < 0).any()  # shuffled: not sorted by class


def test_global_random_state_is_neither_read_nor_moved() -> None:
    def draw() -> tuple[float, float]:
        return float(np.random.random()), torch.rand(1).item()  # noqa: NPY002

    def seed(value: int) -> None:
        np.random.seed(value)  # noqa: NPY002
        torch.manual_seed(value)

    seed(1)
    expected = draw()
    seed(1)
    split = make_split("digits", auxiliary="disjoint", seed=0)
    halves(split.private_train, seed=0)
    assert draw() == expected
    assert make_split("digits", auxiliary="disjoint", seed=0).fingerprint == split.fingerprint


# ---------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"auxiliary": "other"}, "unknown auxiliary 'other'; choose from same, disjoint"),
        ({"seed": -1}, "seed = -1: must be a whole number of at least 0"),
        ({"seed": 1.5}, "seed = 1.5: must be"),
        ({"seed": True}, "seed = True: must be"),
        ({"seed": None}, "seed = None: must be"),
        ({"limit": 0}, "limit = 0: must be a whole number of at least 1"),
        ({"limit": 4}, "limit = 4: must be at least 5"),
        ({"limit": "many"}, "limit = 'many': must be"),
    ],
)
def test_bad_settings(settings: dict[str, object], expected: str) -> None:
    with pytest.raises(DataError) as caught:
        make_split("digits", **({"auxiliary": "disjoint", "seed": 0} | settings))  # type: ignore[arg-type]
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_dataset_is_reported_first() -> None:
    with pytest.raises(DataError, match="unknown dataset 'x'; choose from digits"):
        make_split("x", auxiliary="disjoint", seed=0)


def test_too_few_images_or_identities() -> None:
    assert len(plan_split(numbered([8] * 4), auxiliary="same", seed=0).rows["attack_test"]) == 2
    with pytest.raises(DataError, match=r"1 of 2 classes have no image left.*8 images a class"):
        plan_split(numbered([7, 8, 8, 8], kind="classes"), auxiliary="same", seed=0)
    plan_split(numbered([5] * 4), auxiliary="disjoint", seed=0)
    with pytest.raises(DataError, match="half of 3 identities is no classifier: need at least 4"):
        plan_split(numbered([9] * 3), auxiliary="disjoint", seed=0)


# ------------------------------------------------------------------------------------------- the split


@pytest.mark.parametrize("auxiliary", AUXILIARY)
def test_digits(auxiliary: Auxiliary) -> None:
    split = make_split("digits", auxiliary=auxiliary, seed=3)
    raw = load_dataset("digits")
    known: dict[bytes, set[int]] = {}  # no two digits are alike, so that content says which image it was
    for image, label in zip(raw.images_NHWC, raw.labels_N.tolist(), strict=True):
        known.setdefault(image.tobytes(), set()).add(label)
    assert len(known) == 1797
    seen: list[bytes] = []
    for name, part in parts_of(split).items():
        assert part.x_NCHW.dtype == torch.float32
        assert part.x_NCHW.is_contiguous()
        assert part.x_NCHW.shape[1:] == split.image_shape == (1, 16, 16)
        assert (part.x_NCHW.min().item(), part.x_NCHW.max().item()) == (0, 1)
        first = 5 if name.startswith("attack") and auxiliary == "disjoint" else 0
        assert part.y_N.unique().tolist() == list(range(first, first + 5))
        pixels = [row.tobytes() for row in (part.x_NCHW * 255).round().to(torch.uint8).numpy()]
        assert [known[key] for key in pixels] == [{label} for label in part.y_N.tolist()]
        seen += pixels
    assert len(seen) == len(set(seen)) == (1797 if auxiliary == "disjoint" else 901)
    assert (split.n_classes, split.n_open_classes) == (5, 10 if auxiliary == "disjoint" else 5)
    assert split.pixel_scale is None
    assert split.fingerprint in describe(split)
    assert "\n" not in describe(split)
    assert pickle.loads(pickle.dumps(split)).fingerprint == split.fingerprint


def test_same_settings_repeat_and_others_do_not() -> None:
    settings = {"auxiliary": "disjoint", "seed": 0, "limit": 40}
    first, again = (make_split("digits", **settings) for _ in range(2))  # type: ignore[arg-type]
    assert first.fingerprint == again.fingerprint
    for name, part in parts_of(first).items():
        assert torch.equal(part.x_NCHW, parts_of(again)[name].x_NCHW)
        assert torch.equal(part.y_N, parts_of(again)[name].y_N)
        assert len(part) == (40 if name.endswith("train") else 10)
    prints = {first.fingerprint}
    for change in ({"auxiliary": "same"}, {"seed": 1}, {"limit": 41}, {"limit": None}):
        prints.add(make_split("digits", **(settings | change)).fingerprint)  # type: ignore[arg-type]
    assert len(prints) == 5
    # As it was when this was written: a change of NumPy's or of ours that moves the split must be noticed.
    assert first.fingerprint == "08a6476c4fbebd60"


def test_fingerprint_follows_the_content_not_the_path(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 64, 64), np.uint8)
    labels = np.repeat(range(4), 10)

    def fingerprint(name: str, images: np.ndarray, labels: np.ndarray) -> str:
        np.savez(tmp_path / name, images=images, labels=labels)
        return make_split(f"faces:{tmp_path / name}", auxiliary="disjoint", seed=0).fingerprint

    first = fingerprint("a.npz", images, labels)
    assert fingerprint("b.npz", images, labels) == first
    assert fingerprint("c.npz", images, labels + 7) == first  # other names for the same people
    for row in (0, 11, 22, 39):
        changed = images.copy()
        changed[row, 5, 5] ^= 1
        assert fingerprint("d.npz", changed, labels) != first
    swapped = labels.copy()
    swapped[[0, 39]] = swapped[[39, 0]]
    assert fingerprint("e.npz", images, swapped) != first


def test_identities_are_relabelled(tmp_path: Path) -> None:
    labels = np.repeat(range(7), 10)
    images = np.broadcast_to((labels * 30 + 1).astype(np.uint8)[:, None, None], (70, 64, 64))
    np.savez(tmp_path / "f.npz", images=images, labels=labels)
    split = make_split(f"faces:{tmp_path / 'f.npz'}", auxiliary="disjoint", seed=1)
    assert (split.n_classes, split.n_open_classes, split.pixel_scale) == (3, 7, 4.0)
    person_of: dict[int, set[int]] = {}
    for part in parts_of(split).values():
        for x_CHW, y in zip(part.x_NCHW, part.y_N.tolist(), strict=True):
            person_of.setdefault(y, set()).add((round(x_CHW[0, 0, 0].item() * 255) - 1) // 30)
    assert sorted(person_of) == list(range(7))
    assert sorted(person for people in person_of.values() for person in people) == list(range(7))
    assert set(split.private_test.y_N.tolist()) == {0, 1, 2}
    assert set(split.attack_test.y_N.tolist()) == {3, 4, 5, 6}


# --------------------------------------------------------------------------------------- halves, parts


@pytest.mark.parametrize("counts", [[3, 3, 3], [10, 1, 7, 4], [1], []])
def test_halves(counts: list[int]) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    y_N = torch.from_numpy(np.random.default_rng(0).permutation(labels))
    part = Part(torch.arange(len(y_N)).float().reshape(-1, 1, 1, 1), y_N)
    first, second = halves(part, seed=0)
    rows = torch.cat([first.x_NCHW, second.x_NCHW]).flatten().tolist()
    assert sorted(rows) == list(range(len(y_N)))
    assert abs(len(first) - len(second)) <= 1
    for label in range(len(counts)):
        assert abs(int((first.y_N == label).sum()) - int((second.y_N == label).sum())) <= 1
    for half in (first, second):
        assert torch.equal(half.y_N, y_N[half.x_NCHW.flatten().long()])
    assert torch.equal(halves(part, seed=0)[0].x_NCHW, first.x_NCHW)
    if len(y_N) > 5:
        assert not torch.equal(halves(part, seed=1)[0].x_NCHW, first.x_NCHW)


def test_part_checks_itself() -> None:
    x_NCHW, y_N = torch.zeros(2, 1, 4, 4), torch.zeros(2, dtype=torch.int64)
    assert len(Part(x_NCHW, y_N)) == 2
    for bad_x, bad_y in ((x_NCHW.double(), y_N), (x_NCHW[0], y_N), (x_NCHW, y_N[:1]), (x_NCHW, y_N.int())):
        with pytest.raises(ValueError, match="must be"):
            Part(bad_x, bad_y)


# --------------------------------------------------------------------------------------- the real sets


def test_real_mnist() -> None:
    root = real("MNIST/raw")
    split = make_split("mnist", auxiliary="disjoint", seed=0, data_root=root, download=False)
    sizes = [len(part) for part in parts_of(split).values()]
    assert sizes == [30_596, 5_139, 29_404, 4_861]  # the published numbers of digits 0-4 and 5-9
    assert split.image_shape == (1, 32, 32)
    assert split.pixel_scale == 10.53
    margin = split.private_test.x_NCHW.clone()
    margin[..., 2:30, 2:30] = 0
    assert margin.abs().max() == 0


def test_real_olivetti() -> None:
    root = real("olivetti.npz")
    for auxiliary, sizes in (("disjoint", [160, 40, 160, 40]), ("same", [80, 20, 80, 20])):
        split = make_split("olivetti", auxiliary=auxiliary, seed=0, data_root=root, download=False)  # type: ignore[arg-type]
        assert [len(part) for part in parts_of(split).values()] == sizes
        assert split.n_classes == 20
        for part in parts_of(split).values():
            assert len(set(counts_of(part.y_N))) == 1
