"""Finds images that both the victim and the attacker have, or that are in both train/ and test/, by pixels.

Copies under other file names are found too.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mipoison.data.images import DataError
from mipoison.data.sources import RawImages


def shared_images(raw: RawImages, rows: Mapping[str, np.ndarray]) -> str:
    """Describe in one line how many of the attacker's images equal a private one; '' if none does.

    If the user stated the split with folders, all images of them are compared, those of a test folder with
    those of the training folder, too; else the chosen parts.

    Args:
        raw: the data set. rows: name of the part (``private_train``, ...) -> row numbers in the raw arrays.

    Raises:
        DataError: more than half of the attacker's images are private ones. An attacker trained on the
            private images themselves says nothing about what the API leaks.
    """
    if raw.public_N is not None:
        private, attack = np.flatnonzero(~raw.public_N), np.flatnonzero(raw.public_N)
    else:
        private, attack = (
            np.concatenate([rows[part] for part in sorted(rows) if part.startswith(side)])
            for side in ("private", "attack")
        )
    if not (n := _shared(raw, private, attack)):
        return _trained_and_tested(raw)
    share = f"{n} of {len(attack)} attack images are private images too, pixel by pixel"
    if 2 * n > len(attack):
        remedy = "put other images into attack/" if raw.public_N is not None else "remove the copies"
        raise DataError(
            f"{raw.name}: {share}: what an attacker has without them would not be measured; {remedy}"
        )
    return "; ".join(filter(None, (share, _trained_and_tested(raw))))


def _trained_and_tested(raw: RawImages) -> str:
    """How many images of the user's test folder are in the training folder, too; '' if none is."""
    if raw.public_N is None or raw.official_test_N is None:
        return ""
    train, test = np.flatnonzero(~raw.public_N & ~raw.official_test_N), np.flatnonzero(raw.official_test_N)
    n = _shared(raw, train, test)
    return f"{n} of {len(test)} test images are training images too, pixel by pixel" if n else ""


def _shared(raw: RawImages, first: np.ndarray, second: np.ndarray) -> int:
    """How many images of the second rows equal one of the first."""
    known = {raw.images_NHWC[row].tobytes() for row in first}
    return sum(raw.images_NHWC[row].tobytes() in known for row in second)
