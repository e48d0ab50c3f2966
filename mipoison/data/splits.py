"""Splits a data set into four parts: the victim's images for training and testing, and the attacker's.

A split is a function of the data set's content and of `auxiliary`, `seed` and `limit`; the path that the
files were read from has no influence. The split's fingerprint is written into every record.

Shape suffixes: N images, C channels, H height, W width, K labels; m is the number of private classes.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from mipoison.data.datasets import DATASETS, load_dataset, parse_name
from mipoison.data.drawing import Groups, choose_rows, halve_classes
from mipoison.data.images import DataError, some
from mipoison.data.overlap import shared_images
from mipoison.data.sources import AUXILIARY as AUXILIARY
from mipoison.data.sources import RawImages
from mipoison.randomness import role_seed

Auxiliary = Literal["same", "disjoint"]
PARTS = ("private_train", "private_test", "attack_train", "attack_test")


@dataclass(frozen=True, eq=False)
class Part:
    """Images and labels of one part of a split.

    Attributes:
        x_NCHW: images, float32 in [0, 1].
        y_N: labels, int64.

    Raises:
        ValueError: another type or shape.
    """

    x_NCHW: Tensor
    y_N: Tensor

    def __post_init__(self) -> None:
        x, y = self.x_NCHW, self.y_N
        if x.ndim != 4 or x.dtype != torch.float32:
            raise ValueError(f"x_NCHW must be float32 of shape (N, C, H, W), got {x.dtype} {tuple(x.shape)}")
        if y.shape != x.shape[:1] or y.dtype != torch.int64:
            raise ValueError(f"y_N must be int64 of shape ({len(x)},), got {y.dtype} {tuple(y.shape)}")

    def __len__(self) -> int:
        return len(self.y_N)


@dataclass(frozen=True, eq=False, kw_only=True)
class Split:
    """One data set in four parts that share no image file.

    Attributes:
        dataset: the name as the user gave it, with its path. auxiliary, seed: see :func:`make_split`.
        private_train, private_test: the victim's images (the paper's D_cla); labels 0 to m-1.
        attack_train, attack_test: the attacker's images (the paper's D_inv); labels m to n_open_classes-1
            (`disjoint`) or 0 to m-1 (`same`).
        n_classes: m, the number of private classes.
        n_open_classes: number of private and attack classes together.
        fingerprint: 16 hexadecimal digits of the SHA-256 of the four parts' pixels and labels and of the
            settings.
        pixel_scale: see `DatasetSpec`.
        content: see `RawImages`.
        notes: see `RawImages`; they also say how many of the attacker's images are private ones.
        layout: see `RawImages`.
        test_stated: whether the source says which private images are for testing; else they were drawn.
    """

    dataset: str
    auxiliary: Auxiliary
    seed: int
    private_train: Part
    private_test: Part
    attack_train: Part
    attack_test: Part
    n_classes: int
    n_open_classes: int
    fingerprint: str
    pixel_scale: float | None
    content: str
    notes: str
    layout: str = ""
    test_stated: bool = False

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        channels, height, width = self.private_train.x_NCHW.shape[1:]
        return channels, height, width


@dataclass(frozen=True, eq=False)
class Plan:
    """Which image belongs to which part; the images themselves are not copied yet.

    Attributes:
        rows: name of the part (`PARTS`) -> row numbers in the raw arrays, in random order.
        private_ids, attack_ids: raw labels of the private and of the attacker's classes, sorted; a class's
            new label is its position there (plus m for the attacker's under `disjoint`).
    """

    rows: dict[str, np.ndarray]
    private_ids: np.ndarray
    attack_ids: np.ndarray


def make_split(
    dataset: str,
    *,
    auxiliary: Auxiliary,
    seed: int,
    data_root: Path | str | None = None,
    limit: int | None = None,
    download: bool = True,
    image_size: int | None = None,
    all_private: bool = False,
) -> Split:
    """Load a data set and split it four ways.

    Args:
        dataset: a name of `mipoison.data.datasets.DATASETS`.
        auxiliary: `disjoint`: the attacker's images are of other classes than the private ones (the paper);
            `same`: they are other images of the private classes (Yang et al. 2019).
        seed: draws the private identities, the 80/20 splits, the order, and which images a limit keeps.
        data_root: see `load_dataset`.
        download: see `load_dataset`.
        limit: largest number of training images, for the victim and for the attacker each; each test part
            has at most a quarter of it, rounded up. The images are spread over the classes as evenly as
            their sizes allow, and a smaller limit keeps a subset of those of a larger one. None keeps all.
        image_size: see `load_dataset`.
        all_private: with `same`, all classes are private instead of the first half. For the kind `folder`
            they always are.

    Raises:
        DataError: a setting or the data cannot be used; one line.
    """
    name, _ = parse_name(dataset)
    _check_settings(auxiliary, seed, limit)
    raw = load_dataset(dataset, data_root=data_root, download=download, image_size=image_size)
    plan = plan_split(raw, auxiliary=auxiliary, seed=seed, limit=limit, all_private=all_private)
    notes = "; ".join(
        filter(None, (raw.notes, shared_images(raw, plan.rows) if DATASETS[name].takes_path else ""))
    )
    m = len(plan.private_ids)
    new_label_K = np.empty(int(raw.labels_N.max()) + 1, np.int64)
    new_label_K[plan.attack_ids] = np.arange(len(plan.attack_ids)) + (m if auxiliary == "disjoint" else 0)
    new_label_K[plan.private_ids] = np.arange(m)

    settings: list[Any] = [name, auxiliary, int(seed), None if limit is None else int(limit)]
    if all_private:
        settings.append("all private")
    sha = hashlib.sha256(json.dumps(settings).encode())
    parts = {}
    for part in PARTS:
        rows = plan.rows[part]
        pixels_NHWC, labels_N = raw.images_NHWC[rows], new_label_K[raw.labels_N[rows]]
        sha.update(f"{part}{pixels_NHWC.shape}".encode())
        sha.update(np.ascontiguousarray(pixels_NHWC).data)
        sha.update(labels_N.astype("<i8").data)
        parts[part] = Part(_to_float(pixels_NHWC), torch.from_numpy(labels_N))
    return Split(
        dataset=dataset,
        auxiliary=auxiliary,
        seed=int(seed),
        **parts,
        n_classes=m,
        n_open_classes=m if auxiliary == "same" else m + len(plan.attack_ids),
        fingerprint=sha.hexdigest()[:16],
        pixel_scale=DATASETS[name].pixel_scale,
        content=raw.content,
        notes=notes,
        layout=raw.layout,
        test_stated=raw.official_test_N is not None,
    )


def plan_split(
    raw: RawImages,
    *,
    auxiliary: Auxiliary,
    seed: int,
    limit: int | None = None,
    all_private: bool = False,
) -> Plan:
    """Decide which image belongs to which part; :func:`make_split` then copies the images.

    If the user stated the split with folders (`RawImages.public_N`), it is followed. Otherwise the attacker
    gets other classes (`disjoint`) or half of the images of each private class (`same`). A fifth of each
    class is for testing on a side for which the source does not say which images are.

    Args: see :func:`make_split`.

    Raises:
        DataError: a setting cannot be used, or a class has too few images for all its parts.
    """
    _check_settings(auxiliary, seed, limit)
    rng = _rng(seed, raw.name, auxiliary, "split")
    n_labels = int(raw.labels_N.max()) + 1
    order = rng.permutation(n_labels) if raw.kind == "identities" else np.arange(n_labels)
    n_private = n_labels if auxiliary == "same" and (all_private or raw.kind == "folder") else n_labels // 2
    private_ids, other_ids = np.sort(order[:n_private]), np.sort(order[n_private:])

    def by_label(side_N: np.ndarray) -> tuple[dict[int, np.ndarray], dict[int, np.ndarray]]:
        """Label -> its rows on one side of the split, for training and for testing."""
        train: dict[int, np.ndarray] = {}
        test: dict[int, np.ndarray] = {}
        stated = raw.official_test_N is not None and bool((raw.official_test_N & side_N).any())
        for label in range(n_labels):
            of_label = rng.permutation(np.flatnonzero((raw.labels_N == label) & side_N))
            if raw.official_test_N is None or not stated:
                n_test = max(1, (len(of_label) + 2) // 5)  # a fifth, rounded
                test[label], train[label] = of_label[:n_test], of_label[n_test:]
            else:
                is_test = raw.official_test_N[of_label]
                test[label], train[label] = of_label[is_test], of_label[~is_test]
        return train, test

    groups: dict[str, Groups] = {}
    if raw.public_N is not None:
        private_ids, other_ids = _explicit_sides(raw, auxiliary)
        sides = {
            "private": (private_ids, by_label(~raw.public_N)),
            "attack": (other_ids, by_label(raw.public_N)),
        }
        for side, (ids, (train, test)) in sides.items():
            groups[f"{side}_train"] = [train[int(label)] for label in ids]
            groups[f"{side}_test"] = [test[int(label)] for label in ids]
    else:
        for kind, rows_of in zip(("train", "test"), by_label(np.ones(len(raw.labels_N), bool)), strict=True):
            private = [rows_of[int(label)] for label in private_ids]
            if auxiliary == "same":
                private, attack = halve_classes(private)
            else:
                attack = [rows_of[int(label)] for label in other_ids]
            groups |= {f"private_{kind}": private, f"attack_{kind}": attack}
    attack_ids = private_ids if auxiliary == "same" else other_ids
    _check_sizes(raw, groups, auxiliary, limit)
    quota = {"train": limit, "test": None if limit is None else -(-limit // 4)}
    chosen = {}
    for part in PARTS:
        part_rng = _rng(seed, raw.name, auxiliary, "split", part)
        chosen[part] = choose_rows(groups[part], quota[part.partition("_")[2]], part_rng)
    return Plan(chosen, private_ids, attack_ids)


def halves(part: Part, *, seed: int) -> tuple[Part, Part]:
    """Split a part into two disjoint halves, D1 and D2, drawn by seed.

    Their sizes differ by one at most, in total and in each class.
    """
    rng = _rng(seed, "halves")
    labels_N = part.y_N.cpu().numpy()
    groups = [rng.permutation(np.flatnonzero(labels_N == label)) for label in np.unique(labels_N)]
    rows = [torch.from_numpy(choose_rows(half, None, rng)) for half in halve_classes(groups)]
    first, second = (Part(part.x_NCHW[r], part.y_N[r]) for r in rows)
    return first, second


def describe(split: Split) -> str:
    """The split in one line, for tables and logs."""
    classes = f"{split.n_classes} private"
    if split.auxiliary == "disjoint":
        classes += f" + {split.n_open_classes - split.n_classes} attack"
    return (
        f"{split.dataset} ({split.auxiliary}, seed {split.seed}): {classes} classes, "
        f"{'x'.join(map(str, split.image_shape))}, "
        f"private {len(split.private_train)} train / {len(split.private_test)} test, "
        f"attack {len(split.attack_train)} / {len(split.attack_test)}, fingerprint {split.fingerprint}"
        + "".join(f"; {text}" for text in (split.layout, split.notes) if text)
    )


def _explicit_sides(raw: RawImages, auxiliary: str) -> tuple[np.ndarray, np.ndarray]:
    """Labels of the private and of the public folder.

    Raises:
        DataError: they differ (with `same`) or overlap (with `disjoint`).
    """
    assert raw.public_N is not None
    private_ids, public_ids = np.unique(raw.labels_N[~raw.public_N]), np.unique(raw.labels_N[raw.public_N])
    if auxiliary == "same":
        wrong, rule, other = np.setxor1d(private_ids, public_ids), "the same classes in both", "disjoint"
    else:
        wrong, rule, other = (
            np.intersect1d(private_ids, public_ids),
            "other classes in the public one",
            "same",
        )
    if len(wrong):
        names = some([repr(raw.class_names[label]) for label in wrong])
        where = "not in both folders" if auxiliary == "same" else "in both folders"
        raise DataError(f"{raw.name}, auxiliary={auxiliary} needs {rule}: {names} {where}; or use {other}")
    return private_ids, public_ids


def _check_settings(auxiliary: str, seed: int, limit: int | None) -> None:
    if auxiliary not in AUXILIARY:
        raise DataError(f"unknown auxiliary {auxiliary!r}; choose from {', '.join(AUXILIARY)}")
    for name, value, least in (("seed", seed, 0), ("limit", limit, 1)):
        if name == "limit" and value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise DataError(f"{name} = {value!r}: must be a whole number of at least {least}")


def _check_sizes(raw: RawImages, groups: dict[str, Groups], auxiliary: str, limit: int | None) -> None:
    if len(groups["private_train"]) < 2:
        n = int(raw.labels_N.max()) + 1
        what = "identities" if raw.kind == "identities" else "classes"
        raise DataError(f"{raw.name}: half of {n} {what} is no classifier: need at least 4, so 2 private")
    for part in PARTS:
        empty = sum(not len(rows) for rows in groups[part])
        if empty:
            share = f"{empty} of {len(groups[part])} classes"
            enough = 8 if raw.public_N is None else 2
            hint = f"; {enough} images a class are enough" if raw.official_test_N is None else ""
            hint += f" ({raw.notes})" if raw.notes else ""
            raise DataError(f"{raw.name}, auxiliary={auxiliary}: {share} have no image left for {part}{hint}")
    most = max(len(groups["private_train"]), len(groups["attack_train"]))
    if limit is not None and limit < most:
        raise DataError(f"limit = {limit}: must be at least {most}: {raw.name} has {most} classes a part")


def _rng(seed: int, *role: str) -> np.random.Generator:
    return np.random.default_rng(role_seed(seed, *role))


def _to_float(pixels_NHWC: np.ndarray) -> Tensor:
    x_NCHW = torch.from_numpy(pixels_NHWC).permute(0, 3, 1, 2).contiguous()
    return x_NCHW.to(torch.float32).div_(255)
