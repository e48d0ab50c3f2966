"""The auditor's images: public ones, and private ones of which is known whether the classifier has seen them.

A folder has one folder a class (the layout of torchvision's ImageFolder), or the images themselves; classes
are not used, since it is the endpoint's labels that count. Shape suffixes: N images, H, W, C.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from mipoison.data.images import IMAGE_SUFFIXES, READ_ERRORS, DataError, grey_if_all_are, read_squares
from mipoison.data.walking import class_files
from study.auditing.answers import name_of

POOLS = ("train", "test")
LEAST = 20
"""Images of a pool, and public ones, with fewer of which nothing can be said."""
SIDES = (4, 1024)


@dataclass(frozen=True)
class AuditImages:
    """Images as they are sent.

    Attributes:
        public_NHWC: uint8, of the attacker. private: pool (``train``: the classifier was trained on these;
            ``test``: it was not) -> uint8; empty without private images. notes: lines for the report.
    """

    public_NHWC: np.ndarray
    private: dict[str, np.ndarray] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read_images(
    public: Path, private: Path | None, *, private_are: str | None = None, size: int | None = None
) -> AuditImages:
    """Read the folders; each image is cropped to its central square and resized where it has to be.

    Args:
        public: the attacker's images. private: a folder with ``train`` and ``test`` in it, or one of them;
            or any other folder of images, of which ``private_are`` says which of both they are.
        size: side in pixels; None: that of the public images, which must then all be squares of one size.

    Raises:
        DataError: a folder that is missing, has too few images or one that cannot be read, or private images
            of which is not said what they are.
    """
    folders = {"public": public, **_private_folders(private, private_are)}
    files = {name: _files(name, folder) for name, folder in folders.items()}
    side = size or _side(files["public"])
    if not SIDES[0] <= side <= SIDES[1]:
        raise DataError(f"size = {side}: must be between {SIDES[0]} and {SIDES[1]} pixels")
    read = {n: read_squares(n, folders[n], paths, "RGB", side) for n, paths in files.items()}
    whole = grey_if_all_are(np.concatenate(list(read.values())))
    ends = np.cumsum([len(images) for images in read.values()])[:-1]
    return without_copies(dict(zip(read, np.split(whole, ends), strict=True)))


def without_copies(found: dict[str, np.ndarray]) -> AuditImages:
    """Images of the folders, each once: a copy within a pool counts once, a private one is not public."""
    seen: set[str] = set()
    kept: dict[str, np.ndarray] = {}
    notes = []
    for name in ("train", "test", "public"):
        if name not in found:
            continue
        rows = []
        for i, image in enumerate(found[name]):
            if (digest := name_of(image)) not in seen:
                seen.add(digest)
                rows.append(i)
        if dropped := len(found[name]) - len(rows):
            notes.append(f"{dropped} of {len(found[name])} {name} images are copies, and left out")
        if len(rows) < LEAST:
            raise DataError(f"{len(rows)} different {name} images, need at least {LEAST}")
        kept[name] = found[name][rows]
    return AuditImages(kept.pop("public"), kept, tuple(notes))


def _private_folders(private: Path | None, private_are: str | None) -> dict[str, Path]:
    if private is None:
        return {}
    if private_are is not None and private_are not in POOLS:
        raise DataError(f"private-are {private_are!r}: choose train or test")
    named = {name: private / name for name in POOLS if (private / name).is_dir()}
    if private_are is not None:
        if named:
            raise DataError(f"{private} has {', '.join(named)} in it: leave out --private-are")
        return {private_are: private}
    if not named:
        raise DataError(
            f"{private} has neither train/ nor test/ in it: say with --private-are train|test whether the "
            "classifier was trained on these images"
        )
    return named


def _files(name: str, folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DataError(
            f"{name} images: {folder} {'is not a folder' if folder.exists() else 'does not exist'}"
        )
    classes, others = class_files(name, folder)
    direct = [p for p in others if p.parent == folder and p.suffix.lower() in IMAGE_SUFFIXES]
    files = [*direct, *(path for found in classes.values() for path in found)]
    if not files:
        raise DataError(f"{name} images: none in {folder} ({', '.join(IMAGE_SUFFIXES)})")
    return files


def _side(paths: list[Path]) -> int:
    sizes = set()
    for path in paths:
        try:
            with Image.open(path) as image:
                sizes.add(image.size)
        except READ_ERRORS:
            continue  # named when it is read
    if len(sizes) != 1 or len(set(next(iter(sizes)))) != 1:
        raise DataError("the public images differ in size or are no squares: say with --size what is sent")
    return int(next(iter(sizes))[0])
