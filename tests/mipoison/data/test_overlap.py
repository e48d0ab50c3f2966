"""The same pixels on both sides of a split are counted; an attacker that holds most of them is refused."""

import dataclasses

import numpy as np
import pytest

from mipoison.data.datasets import DataError, load_dataset
from mipoison.data.overlap import shared_images


def test_copies_are_counted_by_their_pixels() -> None:
    raw = load_dataset("digits")
    images = raw.images_NHWC.copy()
    assert len(np.unique(images[:20].reshape(20, -1), axis=0)) == 20  # no copies among these to begin with
    rows = {"private_train": np.arange(4), "private_test": np.arange(4, 8), "attack_train": np.arange(8, 18)}
    assert shared_images(raw, rows) == ""
    images[9], images[12] = images[0], images[5]
    images[13] = images[14]  # the attacker's own copy
    copied = dataclasses.replace(raw, images_NHWC=images)
    assert shared_images(copied, rows) == "2 of 10 attack images are private images too, pixel by pixel"
    images[8:15] = images[0]
    with pytest.raises(DataError, match=r"7 of 10 attack images .*remove the copies"):
        shared_images(copied, rows)


def test_of_an_explicit_split_both_folders_are_compared_whole() -> None:
    raw = load_dataset("digits")
    public = np.arange(len(raw.labels_N)) >= 1000
    images = raw.images_NHWC.copy()
    images[1500] = images[3]
    split = dataclasses.replace(raw, images_NHWC=images, public_N=public)
    assert shared_images(split, {}).startswith("1 of 797 attack images")
