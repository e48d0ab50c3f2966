"""Images and labels of every data set that the library knows, as plain uint8 arrays.

`DATASETS` is the one table. `load_dataset` reads a set from disk, downloads it where its source allows that,
and checks it: whatever is wrong with a user's files is a `DataError` of one line. Splits:
`mipoison.data.splits`.

Shape suffixes: N images, H height, W width, C channels, K identities.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import http.client
import os
import struct
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from PIL import Image

from mipoison.config import one_line
from mipoison.data.imagefolder import class_files, read_image_folder, told
from mipoison.data.images import (
    READ_ERRORS,
    DataError,
    grey_if_all_are,
    read_squares,
    some,
    to_square,
)

FACE_SIDE = 64
SIDES = (16, 32, 64)
"""Heights and widths that victims, evaluators and inversion models of ours are built for."""
FOLDER_SIDE = 32
"""Side of the images of ``folder:PATH`` where none is asked for."""
_IDX_FILES = tuple(f"{a}-{b}-ubyte" for a in ("train", "t10k") for b in ("images-idx3", "labels-idx1"))
_IDX_SHAPES = {b"\x00\x00\x08\x01": (), b"\x00\x00\x08\x03": (28, 28)}  # magic number -> shape of one item
_DOWNLOAD_ERRORS = (OSError, RuntimeError, http.client.HTTPException)  # urllib's URLError is an OSError

Kind = Literal["classes", "identities", "folder"]
Arrays = tuple[np.ndarray, np.ndarray, np.ndarray | None]
FileArrays = tuple[np.ndarray, np.ndarray, None, np.ndarray | None, tuple[str, ...], str]
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class RawImages:
    """One data set as it was read.

    Attributes:
        images_NHWC: uint8, 0 to 255, C is 1 (grey) or 3 (RGB).
        labels_N: int64, 0 to K-1, every value present.
        official_test_N: bool, true for the official test set; None where the source has no such split.
        name: key in `DATASETS` (without a path).
        kind: `classes` (the first half is private), `identities` (which half is private is drawn by seed) or
            `folder` (all classes are private, or under `disjoint` the first half by name).
        public_N: bool, true for the attacker's images of an explicit split; None where there is none.
        class_names: of a `folder`, in the order of the labels.
        notes: what of the user's files was not read, counted and named in one line; '' where all was.
    """

    images_NHWC: np.ndarray
    labels_N: np.ndarray
    official_test_N: np.ndarray | None
    name: str
    kind: Kind
    public_N: np.ndarray | None = None
    class_names: tuple[str, ...] = ()
    notes: str = ""

    @functools.cached_property
    def content(self) -> str:
        """What identifies the images, wherever they lie: 16 hexadecimal digits, SHA-256 of pixels, labels and
        sides."""
        sha = hashlib.sha256(f"{self.images_NHWC.shape}".encode())
        for array in (self.images_NHWC, self.labels_N, self.official_test_N, self.public_N):
            sha.update(b"none" if array is None else np.ascontiguousarray(array).data)
        return sha.hexdigest()[:16]


@dataclass(frozen=True)
class Source:
    """Where a loader may look: the data folder, the user's own path (`name:PATH`), perhaps the network.

    Attributes:
        side: height and width that images of any size are brought to (`folder`).
    """

    name: str
    root: Path
    path: Path
    download: bool
    side: int = FOLDER_SIDE

    @property
    def spec(self) -> DatasetSpec:
        return DATASETS[self.name]


@dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """One row of `DATASETS`.

    Attributes:
        loader: reads the arrays.
        image_shape: (C, H, W) after preparation; C is None where the user's images decide. H and W of
            `folder` are the default of `image_size`.
        kind: see `RawImages`.
        pixel_scale: the paper's reconstruction error over MSE in [0, 1]; None: not in the paper.
        description: one line for lists.
        takes_path: the name is written `name:PATH`.
        min_per_identity: fewest images of an identity; fewer is an error, or with `drop_rare` leaves it out.
        max_identities: only the identities with most images are kept; None keeps all.
    """

    loader: Callable[[Source], Arrays | FileArrays]
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
            return "first half of the classes by name private / the others attack, or two folders that say so"
        return "half of the identities private, drawn by seed / the others attack"


def default_data_root() -> Path:
    """The folder used when none is given: `$MIPOISON_DATA`, else `~/.cache/mipoison/data`."""
    return Path(os.environ.get("MIPOISON_DATA") or "~/.cache/mipoison/data").expanduser()


def dataset_choices() -> str:
    """The valid names, as error messages and `--help` print them."""
    return ", ".join(f"{name}:PATH" if spec.takes_path else name for name, spec in DATASETS.items())


def parse_name(dataset: str) -> tuple[str, str]:
    """Split `mnist` or `faces:PATH` into the key of `DATASETS` and the path ('' where there is none).

    Raises:
        DataError: unknown name, a path where none belongs, or none where one is needed.
    """
    name, colon, path = dataset.partition(":")
    if name not in DATASETS or (colon and not DATASETS[name].takes_path):
        raise DataError(f"unknown dataset {dataset!r}; choose from {dataset_choices()}")
    if DATASETS[name].takes_path and not path:
        raise DataError(f"dataset {dataset!r} needs a path: {name}:PATH ({DATASETS[name].description})")
    return name, path


def check_image_size(dataset: str, image_size: int | None) -> int:
    """The side of a data set's images, for the size that the user asked for (None: the default).

    Raises:
        DataError: a size that is not supported, or one asked for of a data set that has its own.
    """
    spec = DATASETS[parse_name(dataset)[0]]
    if image_size is None:
        return spec.image_shape[1]
    choices = ", ".join(map(str, SIDES))
    if spec.kind != "folder":
        own = spec.image_shape[1]
        raise DataError(
            f"image_size = {image_size}: {dataset} is {own}x{own}; only folder:PATH takes {choices}"
        )
    if image_size not in SIDES:
        raise DataError(
            f"image_size = {image_size}: the inversion models are built for {choices}; choose one, and let a "
            f"classifier that takes {image_size}x{image_size} resize in its forward "
            f"(torch.nn.functional.interpolate(x, {image_size}))"
        )
    return image_size


def load_dataset(
    dataset: str,
    *,
    data_root: Path | str | None = None,
    download: bool = True,
    image_size: int | None = None,
) -> RawImages:
    """Read one data set, downloading it where it is missing and its source allows that.

    Args:
        dataset: a name of `DATASETS`; `faces:PATH` and `facescrub:PATH` carry the user's folder.
        data_root: folder of the downloaded sets; may be read-only. None: `default_data_root()`.
        download: False never touches the network.
        image_size: side of the images of `folder:PATH`, one of SIDES; None: FOLDER_SIDE.

    Raises:
        DataError: unknown name, missing, truncated or malformed files; one line that says what to do.
    """
    name, path = parse_name(dataset)
    root = Path(data_root).expanduser() if data_root is not None else default_data_root()
    try:
        own = Path(path).expanduser()
    except RuntimeError as error:  # ~somebody whom this machine does not know
        raise DataError(f"dataset {dataset!r}: {error}") from error
    source = Source(name, root, own, download, check_image_size(dataset, image_size))
    loaded = source.spec.loader(source)
    images, labels, official = loaded[:3]
    public, class_names, notes = loaded[3:] if len(loaded) == 6 else (None, (), "")
    if source.spec.kind == "classes" and np.unique(labels).tolist() != list(range(10)):
        raise DataError(f"{name}: expected labels 0 to 9, all present, got {np.unique(labels)[:20].tolist()}")
    channels = source.spec.image_shape[0]
    if channels not in (None, images.shape[-1]):
        raise DataError(f"{name}: expected images with {channels} channel(s), got {images.shape[-1]}")
    return RawImages(
        images, labels.astype(np.int64), official, name, source.spec.kind, public, class_names, notes
    )


# ----------------------------------------------------------------------------------------- ten classes


def _load_digits(source: Source) -> Arrays:
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)  # the scans have 17 grey levels
    return images.repeat(2, axis=1).repeat(2, axis=2)[..., None], bunch.target, None


def read_idx(path: Path) -> np.ndarray:
    """Read MNIST's own format, IDX (yann.lecun.com/exdb/mnist): 28x28 images or labels, plain or .gz.

    Returns:
        uint8 array, [N, 28, 28] or [N].

    Raises:
        DataError: another kind of file, truncated, or longer than its header says.
    """
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as stream:
            magic = stream.read(4)
            if magic not in _IDX_SHAPES:
                raise DataError(f"{path}: magic number {magic.hex()!r}, expected one of 00000801, 00000803")
            n, *item = struct.unpack(f">{magic[3]}I", stream.read(4 * magic[3]))
            if tuple(item) != _IDX_SHAPES[magic] or n > 1_000_000:
                raise DataError(f"{path}: shape {[n, *item]}, expected [N, 28, 28] or [N], N at most 1000000")
            size = n * (28 * 28 if item else 1)
            data = stream.read(size + 1)
    except DataError:
        raise
    except READ_ERRORS as error:
        raise DataError(f"{path}: truncated or damaged ({one_line(error)}); fetch it again") from error
    if len(data) != size:
        fault = "truncated" if len(data) < size else "longer than its header says"
        raise DataError(f"{path}: {fault}, expected {size} bytes of data, got {min(len(data), size)}"
                        f"{'' if len(data) < size else ' and more'}; fetch it again")  # fmt: skip
    return np.frombuffer(data, np.uint8).reshape(n, *item)


def _load_mnist(source: Source) -> Arrays:
    class_name = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST"}[source.name]
    folder = source.root / class_name / "raw"
    missing = [f for f in _IDX_FILES if not (folder / f).is_file() and not (folder / f"{f}.gz").is_file()]

    def fetch() -> None:
        import torchvision.datasets

        with _download_folder(source) as temporary:
            getattr(torchvision.datasets, class_name)(temporary, download=True)
            folder.mkdir(parents=True, exist_ok=True)
            for file in _IDX_FILES:
                os.replace(Path(temporary, class_name, "raw", file), folder / file)

    if missing:
        _fetch(source, fetch, f"put {', '.join(missing)} (plain or .gz) into {folder}")
    paths = [folder / file if (folder / file).is_file() else folder / f"{file}.gz" for file in _IDX_FILES]
    train_images, train_labels, test_images, test_labels = (read_idx(path) for path in paths)
    pairs = ((train_images, train_labels, paths[1]), (test_images, test_labels, paths[3]))
    for images, labels, path in pairs:
        if labels.shape != images.shape[:1] or images.ndim != 3:
            raise DataError(f"{path}: expected {len(images)} labels, got {list(labels.shape)}")
    images = np.pad(np.concatenate([train_images, test_images]), ((0, 0), (2, 2), (2, 2)))[..., None]
    is_test = np.arange(len(images)) >= len(train_images)
    return images, np.concatenate([train_labels, test_labels]), is_test


def _load_cifar10(source: Source) -> Arrays:
    path, folder = source.root / "cifar10.npz", source.root / "cifar-10-batches-py"
    keys = ("train_images", "train_labels", "test_images", "test_labels")

    def fetch() -> list[np.ndarray]:
        from torchvision.datasets import CIFAR10

        if not folder.is_dir():
            with _download_folder(source) as temporary:
                CIFAR10(temporary, download=True)
                os.rename(Path(temporary, folder.name), folder)
        # These files are pickles: torchvision compares their MD5 before it opens them.
        parts = [CIFAR10(str(source.root), train=train) for train in (True, False)]
        return [array for part in parts for array in (part.data, np.asarray(part.targets))]

    remedy = f"put cifar-10-batches-py or a cifar10.npz ({', '.join(keys)}) into {source.root}"
    arrays = _read_npz(path, keys) if path.is_file() else _fetch(source, fetch, remedy)
    train_images, train_labels = _checked(path, arrays[0], arrays[1], item=(32, 32, 3))
    test_images, test_labels = _checked(path, arrays[2], arrays[3], item=(32, 32, 3))
    images = np.concatenate([train_images, test_images])
    is_test = np.arange(len(images)) >= len(train_images)
    return images, np.concatenate([train_labels, test_labels]), is_test


# ----------------------------------------------------------------------------------------------- faces


def _load_named_faces(source: Source) -> Arrays:
    """Olivetti or LFW: `<root>/<name>.npz`, else scikit-learn's fetcher."""
    path = source.root / f"{source.name}.npz"

    def fetch() -> Any:
        from sklearn.datasets import fetch_lfw_people, fetch_olivetti_faces

        common: dict[str, Any] = {"data_home": str(source.root), "download_if_missing": source.download}
        if source.name == "olivetti":
            return fetch_olivetti_faces(**common)
        # The middle 125x125 of 250x250: scikit-learn's own slice has the same height but is narrower.
        middle, rare = (slice(70, 195), slice(62, 187)), source.spec.min_per_identity
        return fetch_lfw_people(**common, min_faces_per_person=rare, resize=None, slice_=middle)

    if path.is_file():
        return _face_arrays(source, path, *_read_npz(path, ("images", "labels")))
    bunch = _fetch(source, fetch, f"put {path.name} (images uint8, labels int) into {source.root}")
    return _face_arrays(source, source.root, bunch.images, bunch.target)


def _load_own_faces(source: Source) -> Arrays | FileArrays:
    """The user's folder `<identity>/<image>`, both in the order of their names, or (`faces` only) an .npz."""
    root, has_npz = source.path, source.name == "faces"
    if has_npz and root.suffix == ".npz" and root.is_file():
        return _face_arrays(source, root, *_read_npz(root, ("images", "labels")))
    if not root.is_dir():
        expected = "a folder <identity>/<image>" + " or an .npz (images, labels)" * has_npz
        fault = "is not a folder" if root.exists() else "does not exist"
        raise DataError(f"{source.name}: {root} {fault}; expected {expected}")
    files, unread = class_files(source.name, root, nested=False)
    kept = _kept_identities(source, root, {name: len(paths) for name, paths in files.items()})
    paths = [path for name in kept for path in files[name]]
    images = read_squares(
        source.name, root, paths, "L" if source.spec.image_shape[0] == 1 else "RGB", FACE_SIDE
    )
    labels = np.repeat(np.arange(len(kept)), [len(files[name]) for name in kept])
    said = [told(unread, root)] if unread else []
    if left := [repr(name) for name in files if name not in kept]:
        said.append(f"{len(left)} identities beyond those with most images: {some(left)}")
    return grey_if_all_are(images), labels, None, None, (), "; ".join(said)


def _load_image_folder(source: Source) -> FileArrays:
    """The user's own classes, see :mod:`mipoison.data.imagefolder`."""
    found = read_image_folder(source.path, source.side)
    return found.images_NHWC, found.labels_N, None, found.public_N, found.class_names, found.notes


def _face_arrays(source: Source, path: Path, images: np.ndarray, labels: np.ndarray) -> Arrays:
    """Arrays of any size -> the kept identities as uint8 [N, 64, 64, C], renumbered 0 to K-1."""
    images, labels = _checked(path, images, labels)
    names, codes_N, counts = np.unique(labels, return_inverse=True, return_counts=True)
    kept = set(_kept_identities(source, path, dict(zip(map(str, names), counts.tolist(), strict=True))))
    keep_K = np.array([str(name) in kept for name in names])
    images, codes_N = images[keep_K[codes_N]], (np.cumsum(keep_K) - 1)[codes_N[keep_K[codes_N]]]
    if images.shape[1:3] != (FACE_SIDE, FACE_SIDE):
        flat = images[..., 0] if images.shape[-1] == 1 else images
        images = np.stack([to_square(Image.fromarray(image), FACE_SIDE) for image in flat])
    return grey_if_all_are(images), codes_N, None


def _kept_identities(source: Source, path: Path, counts: Mapping[str, int]) -> list[str]:
    """The identities to use, in the order given; too few of them, or of images of one, is an error."""
    spec, least = source.spec, source.spec.min_per_identity
    kept = [name for name, n in counts.items() if n >= least or not spec.drop_rare]
    most = set(sorted(kept, key=lambda name: (-counts[name], name))[: spec.max_identities])
    kept = [name for name in kept if name in most]
    if len(kept) < 2:
        rule = f" with at least {least} images" * spec.drop_rare
        raise DataError(f"{source.name}: {len(kept)} identities{rule} in {path}, need at least 2")
    rare = [f"{name!r} has {counts[name]}" for name in kept if counts[name] < least]
    if rare:
        share = f"{len(rare)} of {len(kept)} identities in {path}"
        raise DataError(f"{source.name}: {share} have fewer than {least} images (80/20 split): {some(rare)}")
    return kept


# --------------------------------------------------------------------------------- files and downloads


def _read_npz(path: Path, keys: tuple[str, ...]) -> list[np.ndarray]:
    try:
        if not zipfile.is_zipfile(path):
            raise DataError(f"{path}: not an .npz; expected one with {', '.join(keys)}")
        with np.load(path, allow_pickle=False) as archive:
            if missing := [key for key in keys if key not in archive]:
                found = some(list(archive))
                raise DataError(f"{path}: no {', '.join(missing)}; expected {', '.join(keys)}, got {found}")
            return [archive[key] for key in keys]
    except DataError:
        raise
    except READ_ERRORS as error:
        raise DataError(f"{path}: not an .npz of plain arrays, or damaged ({one_line(error)})") from error


def _checked(
    path: Path, images: np.ndarray, labels: np.ndarray, item: tuple[int, ...] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """Images as uint8 [N, H, W, C] and their labels; `item` demands one (H, W, C) and numeric labels."""
    shape = (*images.shape, 1) if images.ndim == 3 and not item else images.shape
    if len(shape) != 4 or shape[-1] not in (1, 3) or 0 in shape or item not in ((), shape[1:]):
        expected = f"[N, {', '.join(map(str, item))}]" if item else "[N, H, W] or [N, H, W, 1 or 3]"
        raise DataError(f"{path}: expected images of shape {expected}, got {list(images.shape)}")
    images = images.reshape(shape)
    if images.dtype.kind == "f":
        if not (images.min() >= 0 and images.max() <= 1):  # false for NaN as well
            raise DataError(f"{path}: float images must lie in [0, 1], got {images.min()} to {images.max()}")
        images = np.rint(images * 255).astype(np.uint8)
    if images.dtype != np.uint8:
        raise DataError(f"{path}: expected images of uint8, or float in [0, 1], got {images.dtype}")
    if labels.shape != images.shape[:1] or labels.dtype.kind not in ("iu" if item else "iuU"):
        got = f"{labels.dtype} {list(labels.shape)}"
        raise DataError(f"{path}: expected {len(images)} integer labels, one an image, got {got}")
    return images, labels


def _fetch(source: Source, fetch: Callable[[], T], remedy: str) -> T:
    """Run a downloader; whatever goes wrong in it becomes one line that ends in the remedy."""
    try:
        return fetch()
    except _DOWNLOAD_ERRORS as error:
        fault = f"not in {source.root} and not downloaded ({one_line(error)})"
        raise DataError(f"{source.name}: {fault}; {remedy}") from error


def _download_folder(source: Source) -> tempfile.TemporaryDirectory[str]:
    """A private folder: several workers may start at once, and none may read another's half-written file."""
    if not source.download:
        raise FileNotFoundError("downloads are switched off")
    source.root.mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryDirectory(dir=source.root, prefix=".download-")


_GREY, _FACE = (1, 32, 32), (1, FACE_SIDE, FACE_SIDE)

DATASETS: dict[str, DatasetSpec] = {
    "digits": DatasetSpec(loader=_load_digits, image_shape=(1, 16, 16), kind="classes", pixel_scale=None,
                          description="1,797 scanned digits that scikit-learn ships: needs no download"),
    "mnist": DatasetSpec(loader=_load_mnist, image_shape=_GREY, kind="classes", pixel_scale=10.53,
                         description="70,000 handwritten digits"),
    "fashion-mnist": DatasetSpec(loader=_load_mnist, image_shape=_GREY, kind="classes", pixel_scale=8.03,
                                 description="70,000 pictures of clothes"),
    "cifar10": DatasetSpec(loader=_load_cifar10, image_shape=(3, 32, 32), kind="classes", pixel_scale=16.0,
                           description="60,000 colour pictures of animals and vehicles"),
    "olivetti": DatasetSpec(loader=_load_named_faces, image_shape=_FACE, kind="identities", pixel_scale=4.0,
                            description="400 faces of 40 people"),
    "lfw": DatasetSpec(loader=_load_named_faces, image_shape=_FACE, kind="identities", pixel_scale=4.0,
                       min_per_identity=10, drop_rare=True,
                       description="Labeled Faces in the Wild, people with ten images or more"),
    "facescrub": DatasetSpec(loader=_load_own_faces, image_shape=_FACE, kind="identities", pixel_scale=4.0,
                             takes_path=True, max_identities=200,
                             description="your folder <identity>/*.jpg, grey; the 200 with most images"),
    "faces": DatasetSpec(loader=_load_own_faces, image_shape=(None, FACE_SIDE, FACE_SIDE), kind="identities",
                         pixel_scale=4.0, takes_path=True,
                         description="your folder <identity>/<image>, or an .npz of images and labels"),
    "folder": DatasetSpec(loader=_load_image_folder, image_shape=(None, FOLDER_SIDE, FOLDER_SIDE),
                          kind="folder", pixel_scale=None, takes_path=True,
                          description="your folder <class>/<image>, any number of classes"),
}  # fmt: skip
