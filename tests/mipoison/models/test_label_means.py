"""Mean images of labels against a NumPy loop."""

import numpy as np
import torch

from mipoison.models.label_means import label_means
from mipoison.randomness import generator

K, LABELS = 4, torch.tensor([0, 0, 1, 0, 1, 2, 1, 0, 1, 0])


def test_means_of_labels() -> None:
    x = torch.rand(10, 6, generator=generator(0, "x"), dtype=torch.float64)
    found = label_means(LABELS, x, K)
    for k in range(3):
        np.testing.assert_allclose(found[k], x.numpy()[LABELS.numpy() == k].mean(0))
    np.testing.assert_allclose(found[3], x.numpy().mean(0))  # nobody has it
