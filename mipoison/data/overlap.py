"""The same images on both sides of a split, found by their pixels: files of other names, copies, links."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mipoison.data.datasets import DataError, RawImages


def shared_images(raw: RawImages, rows: Mapping[str, np.ndarray]) -> str:
    """How many of the attacker's images show the same pixels as a private one; '' for none.

    Of an explicit split all images of both folders are compared, of another what its parts hold.

    Args:
        rows: name of the part -> row numbers in the raw arrays.

    Raises:
        DataError: more than half: an attacker who trains on the private images measures nothing.
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
