"""Loaders of the data sets of faces: Olivetti, Labeled Faces in the Wild (LFW), and the user's own.

Every loader returns square images of :data:`~mipoison.data.sources.FACE_SIDE` pixels, one label an identity.

Shape suffixes: N images, H height, W width, C channels, K identities.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mipoison.data.images import DataError, grey_if_all_are, read_squares, some, to_square
from mipoison.data.loading import check_arrays, fetch, read_npz
from mipoison.data.sources import FACE_SIDE, Loaded, Source
from mipoison.data.walking import class_files, describe_unread


def load_named_faces(source: Source) -> Loaded:
    """Olivetti or LFW from `<root>/olivetti.npz` or `lfw.npz`, else by scikit-learn's fetcher.

    `lfw-30` is read from `lfw.npz`, too.
    """
    path = source.root / f"{source.name.partition('-')[0]}.npz"

    def download() -> Any:
        # Imported here because it is slow and an .npz does without it.
        from sklearn.datasets import fetch_lfw_people, fetch_olivetti_faces

        common: dict[str, Any] = {"data_home": str(source.root), "download_if_missing": source.download}
        if source.name == "olivetti":
            return fetch_olivetti_faces(**common)
        # The middle 125x125 of 250x250: scikit-learn's own slice has the same height but is narrower.
        middle, rare = (slice(70, 195), slice(62, 187)), source.spec.min_per_identity
        return fetch_lfw_people(**common, min_faces_per_person=rare, resize=None, slice_=middle)

    if path.is_file():
        return face_arrays(source, path, *read_npz(path, ("images", "labels")))
    bunch = fetch(source, download, f"put {path.name} (images uint8, labels int) into {source.root}")
    return face_arrays(source, source.root, bunch.images, bunch.target)


def load_own_faces(source: Source) -> Loaded:
    """The user's folder `<identity>/<image>`, or (`faces` only) an `.npz` with `images` and `labels`.

    Identities and images are sorted by name. Files that are no images, images in subfolders of an identity
    and identities beyond `max_identities` are left out and named in the notes.
    """
    root, has_npz = source.path, source.name == "faces"
    if has_npz and root.suffix == ".npz" and root.is_file():
        return face_arrays(source, root, *read_npz(root, ("images", "labels")))
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
    notes = [describe_unread(unread, root)] if unread else []
    if left := [repr(name) for name in files if name not in kept]:
        notes.append(f"{len(left)} identities beyond those with most images: {some(left)}")
    return Loaded(grey_if_all_are(images), labels, notes="; ".join(notes))


def face_arrays(source: Source, path: Path, images: np.ndarray, labels: np.ndarray) -> Loaded:
    """Bring faces from arrays to the common form: FACE_SIDE pixels a side, labels renumbered 0 to K-1.

    Args:
        path: where the arrays came from, for messages.
        images: [N, H, W] or [N, H, W, 1 or 3], uint8 or float in [0, 1], of any size.
        labels: [N], integers or text, one value an identity.

    Raises:
        DataError: arrays of another form, fewer than two identities, or too few images of one.
    """
    images, labels = check_arrays(path, images, labels)
    names, codes_N, counts = np.unique(labels, return_inverse=True, return_counts=True)
    kept = set(_kept_identities(source, path, dict(zip(map(str, names), counts.tolist(), strict=True))))
    keep_K = np.array([str(name) in kept for name in names])
    images, codes_N = images[keep_K[codes_N]], (np.cumsum(keep_K) - 1)[codes_N[keep_K[codes_N]]]
    if images.shape[1:3] != (FACE_SIDE, FACE_SIDE):
        flat = images[..., 0] if images.shape[-1] == 1 else images
        images = np.stack([to_square(Image.fromarray(image), FACE_SIDE) for image in flat])
    return Loaded(grey_if_all_are(images), codes_N)


def _kept_identities(source: Source, path: Path, counts: Mapping[str, int]) -> list[str]:
    """The identities that are used, in the order given.

    Args:
        path: for messages. counts: identity -> number of its images.

    Raises:
        DataError: fewer than two identities are left, or one has too few images to be split 80/20.
    """
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
