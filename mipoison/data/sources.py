"""What a loader of a data set is given and what it returns: the types behind the entries of `DATASETS`.

Shape suffixes: N images, H height, W width, C channels, K classes or identities.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

FACE_SIDE = 64
"""Height and width, in pixels, of the images of every data set of faces."""
FOLDER_SIDE = 32
"""Height and width, in pixels, of the images of ``folder:PATH`` unless `image_size` asks for others."""

AUXILIARY = ("same", "disjoint")
"""Which images the attacker has: other images of the private classes, or images of other classes."""

Kind = Literal["classes", "identities", "folder"]


class Loaded(NamedTuple):
    """The arrays that a loader returns; `load_dataset` checks them and makes `RawImages` of them.

    Attributes:
        images_NHWC, labels_N, official_test_N, public_N, class_names, notes, layout: see `RawImages`; the
            labels may be of any integer type here.
    """

    images_NHWC: np.ndarray
    labels_N: np.ndarray
    official_test_N: np.ndarray | None = None
    public_N: np.ndarray | None = None
    class_names: tuple[str, ...] = ()
    notes: str = ""
    layout: str = ""


@dataclass(frozen=True, eq=False)
class RawImages:
    """One data set as it was read from disk, before it is split.

    Attributes:
        images_NHWC: uint8, 0 to 255; C is 1 (grey) or 3 (RGB).
        labels_N: int64, 0 to K-1, every value present.
        official_test_N: bool, true for the official test set, or for the test folder of a split that the user
            stated; None if the source has no such split.
        name: key in `DATASETS` (without a path).
        kind: decides which labels are private. `classes`: the first half of them. `identities`: a half drawn
            by seed. `folder`: all of them, or under the setting `disjoint` the first half by name.
        public_N: bool, true for the attacker's images if the user's folders state the split (see
            :mod:`mipoison.data.imagefolder`); None if they do not.
        class_names: in the order of the labels, for the kind `folder`; otherwise empty.
        notes: one line that counts and names the user's files that were not read; '' if all were.
        layout: which of the user's folders were taken for what, for the kind `folder`; otherwise ''.
    """

    images_NHWC: np.ndarray
    labels_N: np.ndarray
    official_test_N: np.ndarray | None
    name: str
    kind: Kind
    public_N: np.ndarray | None = None
    class_names: tuple[str, ...] = ()
    notes: str = ""
    layout: str = ""

    @functools.cached_property
    def content(self) -> str:
        """Identifies the images wherever the files are: the first 16 hexadecimal digits of the SHA-256 of
        pixels, labels and both boolean masks."""
        sha = hashlib.sha256(f"{self.images_NHWC.shape}".encode())
        for array in (self.images_NHWC, self.labels_N, self.official_test_N, self.public_N):
            sha.update(b"none" if array is None else np.ascontiguousarray(array).data)
        return sha.hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """One entry of `DATASETS`.

    Attributes:
        loader: reads the arrays, raising `DataError` for whatever is wrong with the files.
        image_shape: (C, H, W) after preparation; C is None if the user's images decide. For `folder`, H and
            W are the default that `image_size` replaces.
        kind: see `RawImages`.
        pixel_scale: factor from the mean squared error in [0, 1] to the reconstruction error that the paper
            reports for this data set; None if the paper does not use the data set.
        description: one line for lists.
        takes_path: whether the user writes the name as `name:PATH`.
        min_per_identity: the smallest number of images an identity may have. One with fewer is an error; with
            `drop_rare` it is left out instead.
        drop_rare: see `min_per_identity`.
        max_identities: only this many identities are kept, those with the most images; None keeps all.
    """

    loader: Callable[[Source], Loaded]
    image_shape: tuple[int | None, int, int]
    kind: Kind
    pixel_scale: float | None
    description: str
    takes_path: bool = False
    min_per_identity: int = 5
    drop_rare: bool = False
    max_identities: int | None = None

    @property
    def class_rule(self) -> str:
        """Which labels are private and which are the attacker's, in words."""
        if self.kind == "classes":
            return "classes 0-4 private / 5-9 attack"
        if self.kind == "folder":
            return "first half of the classes by name private / the others attack, or folders that say so"
        return "half of the identities private, drawn by seed / the others attack"


@dataclass(frozen=True)
class Source:
    """What a loader is given: which data set to read, and where it may look.

    Attributes:
        name: key in `DATASETS`. spec: its entry.
        root: folder of the downloaded data sets; may be read-only.
        path: the user's own file or folder (`name:PATH`); the current folder if the name has none.
        download: whether the loader may use the network.
        side: height and width, in pixels, to which images of any size are resized (`folder` only).
    """

    name: str
    spec: DatasetSpec
    root: Path
    path: Path
    download: bool
    side: int = FOLDER_SIDE
