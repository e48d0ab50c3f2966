"""Finds images that both the victim and the attacker have, by comparing pixels.

Copies under other file names are found too.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mipoison.data.images import DataError
from mipoison.data.sources import RawImages


def shared_images(raw: RawImages, rows: Mapping[str, np.ndarray]) -> str:
    """Describe in one line how many of the attacker's images equal a private one; '' if none does.

    If the user stated the split with two folders, all images of both are compared; else the chosen parts.

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
    known = {raw.images_NHWC[row].tobytes() for row in private}
    if not (n := sum(raw.images_NHWC[row].tobytes() in known for row in attack)):
        return ""
    share = f"{n} of {len(attack)} attack images are private images too, pixel by pixel"
    if 2 * n > len(attack):
        remedy = "put other images into attack/" if raw.public_N is not None else "remove the copies"
        raise DataError(
            f"{raw.name}: {share}: what an attacker has without them would not be measured; {remedy}"
        )
    return share
