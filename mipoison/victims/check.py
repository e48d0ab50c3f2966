"""Whether a user's classifier can be attacked at all: a few images are asked, and the answers judged.

Shape suffixes: N samples, K classes, CHW image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import scipy.stats
import torch
from torch import Tensor

from mipoison.config import ConfigError
from mipoison.protocols import CHUNK
from mipoison.randomness import generator
from mipoison.training import seeded
from mipoison.victims.ask import Classifier, undone
from mipoison.victims.outputs import signs_of_probabilities

PROBE = 256
"""Private training images, spread over the classes, that a classifier is tried on."""
MORE = 4096
"""As many where it was not seen on the first ones to recognise anything: fair to weak classifiers."""
ERROR = 1e-3
"""Probability with which a classifier that answers without regard to the image passes a look at the bound."""
_SAME_ANSWER, _SAME_IN_HALF = 1e-4, 0.05
"""Confidences that differ by more between two batches are no rounding: of float32, and of 16 bits."""


@undone()
def check_victim(classifier: Classifier, x_NCHW: Tensor, y_N: Tensor | None, n_classes: int) -> None:
    """Ask some images and judge the answers.

    Args:
        x_NCHW: private training images, at least two; their device does not matter.
        y_N: their labels, 0 to K-1; None: unknown, then only an answer that never changes is found.
        n_classes: K, the private classes.

    Raises:
        ConfigError: it fails on such images; gives another number of outputs, probabilities that nobody
            stated, or numbers that are not finite; answers differently when asked again or among other
            images; or recognises its training images no better than a constant answer would.
    """
    rows = spread(y_N, PROBE) if y_N is not None else torch.arange(min(len(x_NCHW), PROBE))
    name, x_probe = classifier.name, x_NCHW[rows]
    z_NK = answers(classifier, x_probe)
    if z_NK.shape[1] != n_classes:
        raise ConfigError(
            f"classifier {name} has {z_NK.shape[1]} outputs, the data {n_classes} private classes: they "
            "must be the same, in the order of the labels (of a folder: the sorted class names)"
        )
    if classifier.outputs is None and (what := signs_of_probabilities(z_NK)):
        raise ConfigError(
            f"classifier {name} returns probabilities ({what}): return logits, the values before the last "
            "layer's softmax or sigmoid; or state it: outputs='probabilities' (--victim-outputs "
            "probabilities; each vector is divided by its sum). If these are logits, state outputs='logits'"
        )
    c_NK = torch.softmax(z_NK.double(), 1)
    first = x_probe[:CHUNK]
    with seeded(generator(1, "asked again"), classifier.device):  # other random numbers than before
        again_NK = torch.softmax(answers(classifier, first).double(), 1)
    if float((again_NK - c_NK[:CHUNK]).abs().max()) > _SAME_ANSWER:
        raise ConfigError(
            f"classifier {name} answers the same images differently when asked again: does it draw random "
            "numbers, or keep what it was asked? switch that off in eval mode"
        )
    alone_NK = torch.softmax(torch.cat([answers(classifier, x[None]) for x in first[:2]]).double(), 1)
    rounding = _SAME_IN_HALF if _in_half(z_NK) else _SAME_ANSWER
    if float((alone_NK - c_NK[:2]).abs().max()) > rounding:
        raise ConfigError(
            f"classifier {name} answers an image differently among others (batch statistics): export it, or "
            "use it, in eval mode"
        )
    _judge(classifier, x_NCHW, y_N, rows, z_NK)


def _judge(classifier: Classifier, x_NCHW: Tensor, y_N: Tensor | None, rows: Tensor, z_NK: Tensor) -> None:
    """Whether it recognises its training images; more of them are asked before it is refused."""
    name, n_classes = classifier.name, z_NK.shape[1]
    told_N = z_NK.argmax(1)
    if y_N is None:
        c_NK = torch.softmax(z_NK.double(), 1)
        if float((c_NK.amax(0) - c_NK.amin(0)).max()) < _SAME_ANSWER:
            raise ConfigError(
                f"classifier {name} answers all of {len(rows)} private images alike (class "
                f"{int(told_N[0])}): is it "
                "trained, and are these its training images, in [0, 1]?"
            )
        return
    counts = torch.bincount(y_N[rows], minlength=n_classes)
    if int((counts > 0).sum()) < 2:
        raise ConfigError(
            f"all {len(y_N)} private labels are {int(y_N[0])}: classifier {name} cannot be judged by "
            f"one class; "
            f"give images of at least two of {n_classes}"
        )
    right = int((told_N == y_N[rows]).sum())
    if right >= least_right(counts.tolist()):
        return
    wider = spread(y_N, MORE)
    if len(wider) > len(rows):
        _judge(classifier, x_NCHW, y_N, wider, answers(classifier, x_NCHW[wider]))
        return
    n, most = len(rows), int(torch.bincount(told_N).max())
    absent = [str(k) for k in range(n_classes) if counts[k] == 0]
    raise ConfigError(
        f"classifier {name} recognises {right / n:.1%} of {n} private training images "
        f"({int(counts.max())} at "
        f"most of a class), no better than chance: a constant answer reaches "
        f"{int(counts.max()) / n:.1%}, and "
        f"{least_right(counts.tolist()) / n:.1%} are needed to tell (error {ERROR:g}); its commonest answer, "
        f"class {int(torch.bincount(told_N).argmax())}, was given to {most}. Is it trained, are its "
        f"outputs in "
        "the order of the labels (sorted class names), and does it take images in [0, 1]?"
        + (f" Classes without an image: {', '.join(absent[:20])}" if absent else "")
    )


def answers(classifier: Classifier, x_NCHW: Tensor) -> Tensor:
    """Logits (N, K), asked as a service asks."""
    return torch.cat([classifier(x).cpu() for x in x_NCHW.split(CHUNK)])


def spread(y_N: Tensor, n: int) -> Tensor:
    """At most ``n`` rows, the classes in turn, in order; as even as makes a constant answer stand out most.

    Of classes with more images than the others only so many are taken as help: with 1,000 and 3 images, 3
    and 3, since right answers to 997 images of one class say nothing.
    """
    y_N = y_N.cpu()
    rank_N = torch.empty_like(y_N)
    for k in y_N.unique():
        rank_N[y_N == k] = torch.arange(int((y_N == k).sum()))
    order = torch.argsort(rank_N, stable=True)[:n]
    best, best_power = order, 0.0
    for most in range(1, int(rank_N[order].max()) + 2):
        rows = order[rank_N[order] < most]
        largest = int(torch.bincount(y_N[rows]).max())
        power = -len(rows) * math.log(largest / len(rows))  # how unlikely a constant answer is always right
        if power >= best_power:
            best, best_power = rows, power
    return best.sort().values


def least_right(counts: Sequence[int]) -> int:
    """How many right answers a constant one (or one drawn without regard to the image) does not reach.

    A binomial bound with the largest class's share as the chance: it reaches so many with probability
    :data:`ERROR` at most. Where images are so few that even all right would not do, one more than the largest
    class has is enough: no bound holds there, but an honest classifier must not be refused for few images.
    """
    n, largest = sum(counts), max(counts)
    bound = int(scipy.stats.binom.isf(ERROR, n, largest / n)) + 1
    return bound if bound <= n else largest + 1


def _in_half(z_NK: Tensor) -> bool:
    """Whether numbers were computed with 16 bits, whatever their type is now."""
    return any(bool((z_NK.to(kind).float() == z_NK).all()) for kind in (torch.float16, torch.bfloat16))
