"""Checks a user's classifier before a study: it classifies some images, and its answers are tested.

Shape suffixes: N samples, K classes, CHW image.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from mipoison.config import ConfigError
from mipoison.process import own_context, reseeded
from mipoison.protocols import CHUNK
from mipoison.randomness import generator, role_seed
from mipoison.victims.ask import Classifier
from mipoison.victims.outputs import signs_of_probabilities

PROBE = 256
"""Number of private training images, balanced over the classes, that a classifier is checked on."""
MORE = 4096
"""Number of images if the first ones did not show that a weak classifier is better than chance."""
ERROR = 1e-3
"""Largest probability that a classifier whose answers do not depend on the image passes the check."""
ENOUGH = 100
"""With this many images outside the most frequent class, a classifier no better than chance is refused."""
_HOPELESS = 0.9
"""With fewer images it is refused only if the p-value exceeds this; otherwise a warning is logged."""
_PERMUTATIONS = 9999
"""Random orders of the answers in the permutation test."""
_SAME_ANSWER, _SAME_IN_HALF, _SAME_IN_TF32 = 1e-4, 0.05, 0.01
"""Largest difference between two answers to one image that rounding explains: in float32, with 16 bits, and
in a GPU's TF32."""
_LONE, _OTHER_CHUNK = 8, 37
"""Number of images that are sent one at a time, and size of the batches in which all are sent again."""
_APART = (
    "it answers an image differently among others (batch statistics): use it, or export it, in eval mode, "
    "with layers that keep running statistics (track_running_stats=True), and compute nothing over the batch"
)

log = logging.getLogger(__name__)


@own_context()
def check_victim(classifier: Classifier, x_NCHW: Tensor, y_N: Tensor | None, n_classes: int) -> None:
    """Run a classifier on some of its training images and check the answers.

    Args:
        classifier: the user's classifier.
        x_NCHW: private training images, at least two, on any device.
        y_N: their labels, 0 to K-1. None means unknown; then of the checks against chance only one is made,
            whether all answers are the same.
        n_classes: K, the number of private classes.

    Raises:
        ConfigError: the classifier

            - fails on such images, or returns another number of outputs or numbers that are not finite;
            - returns probabilities, though the user did not say so;
            - answers an image differently when it is asked again, or in another batch;
            - recognises its training images no better than chance. With fewer than :data:`ENOUGH` images
              outside the most frequent class this is an error only if it is clearly so, else a warning.
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
    with reseeded(1, classifier.device):  # a classifier that draws random numbers now draws other ones
        again_NK = torch.softmax(answers(classifier, first).double(), 1)
    if float((again_NK - c_NK[:CHUNK]).abs().max()) > _SAME_ANSWER:
        raise ConfigError(
            f"classifier {name} answers the same images differently when asked again: does it draw random "
            "numbers, or keep what it was asked? switch that off in eval mode"
        )
    _check_alone(classifier, x_probe, z_NK)
    _judge(classifier, x_NCHW, y_N, rows, z_NK)


def _check_alone(classifier: Classifier, x_NCHW: Tensor, z_NK: Tensor) -> None:
    """Refuse a classifier whose answers depend on the rest of the batch.

    All images are sent again in another order and in smaller batches, and some of them alone.
    """
    order = torch.randperm(len(x_NCHW), generator=generator(1, "another order"))
    lone = order[:_LONE]
    try:
        z_lone = torch.cat([classifier(x_NCHW[i : i + 1]).cpu() for i in lone.tolist()])
    except ConfigError as error:
        raise ConfigError(f"{error}; it answers {min(len(z_NK), CHUNK)} at a time: {_APART}") from error
    z_other = torch.cat([*(classifier(x_NCHW[rows]).cpu() for rows in order.split(_OTHER_CHUNK)), z_lone])
    c_other, c_NK = torch.softmax(z_other.double(), 1), torch.softmax(z_NK.double(), 1)
    off = float((c_other - c_NK[torch.cat([order, lone])]).abs().max())
    if off > (bound := rounding(z_NK, classifier.device)):
        raise ConfigError(
            f"classifier {classifier.name}: confidences differ by {off:.2g}, at most {bound:.2g} is "
            f"rounding: {_APART}"
        )


def rounding(z_NK: Tensor, device: torch.device) -> float:
    """Largest difference between the confidences of two runs on one image that rounding explains.

    The runs may differ in batch, kernels or device. Larger logits have larger rounding errors.
    """
    if any(bool((z_NK.to(kind).float() == z_NK).all()) for kind in (torch.float16, torch.bfloat16)):
        return _SAME_IN_HALF  # the logits were computed with 16 bits, whatever their dtype is now
    if device.type == "cuda" and (torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32):
        return _SAME_IN_TF32
    return _SAME_ANSWER + 32 * torch.finfo(torch.float32).eps * float(z_NK.abs().max())


def _judge(classifier: Classifier, x_NCHW: Tensor, y_N: Tensor | None, rows: Tensor, z_NK: Tensor) -> None:
    """Refuse a classifier that recognises its training images no better than chance.

    Before that, it is run on more images.
    """
    name, n_classes = classifier.name, z_NK.shape[1]
    told_N = z_NK.argmax(1)
    if y_N is None:
        c_NK = torch.softmax(z_NK.double(), 1)
        if float((c_NK.amax(0) - c_NK.amin(0)).max()) < _SAME_ANSWER:
            raise ConfigError(
                f"classifier {name} answers all of {len(rows)} private images alike (class "
                f"{int(told_N[0])}): is it trained, and are these its training images, in [0, 1]?"
            )
        return
    y_rows = y_N[rows].cpu()
    counts = torch.bincount(y_rows, minlength=n_classes)
    if int((counts > 0).sum()) < 2:
        raise ConfigError(
            f"all {len(y_N)} private labels are {int(y_N[0])}: classifier {name} cannot be judged by "
            f"one class; give images of at least two of {n_classes}"
        )
    p = permutation_p_value(told_N, y_rows)
    if p <= ERROR / 2:  # half, because the p-value is the smaller one of two tests
        return
    wider = spread(y_N, MORE)
    if len(wider) > len(rows):
        _judge(classifier, x_NCHW, y_N, wider, answers(classifier, x_NCHW[wider]))
        return
    n, right, most = len(rows), int((told_N == y_rows).sum()), int(torch.bincount(told_N).max())
    absent = [str(k) for k in range(n_classes) if counts[k] == 0]
    found = (
        f"classifier {name} recognises {right / n:.1%} of {n} private training images ({int(counts.max())} "
        f"at most of a class), no better than chance: its answers in random order are right as often in "
        f"{p:.2g} of all orders, {ERROR / 2:g} at most are needed to tell (error {ERROR:g}); its commonest "
        f"answer, class {int(torch.bincount(told_N).argmax())}, was given to {most}"
    )
    if n - int(counts.max()) < ENOUGH and p <= _HOPELESS:
        log.warning("%s. So few images do not decide this; the classifier is used all the same", found)
        return
    raise ConfigError(
        f"{found}. Is it trained, are its outputs in the order of the labels (sorted class names), and does "
        "it take images in [0, 1]?"
        + (f" Classes without an image: {', '.join(absent[:20])}" if absent else "")
    )


def permutation_p_value(told_N: Tensor, y_N: Tensor) -> float:
    """P-value of a permutation test of the null hypothesis that answers do not depend on the labels.

    The test has two statistics: the number of right answers, and the sum of the shares of right answers in
    each class. The first detects a classifier that knows only frequent classes, the second one that knows
    only rare ones. How uneven labels or answers are does not matter, since permuting keeps both.

    Args:
        told_N: the classes that the classifier answered. y_N: the labels.

    Returns:
        The smaller one of the two p-values, in (0, 1].
    """
    told, y = told_N.cpu().numpy(), y_N.cpu().numpy()
    each_N = 1 / np.bincount(y)[y]
    rng = np.random.default_rng(role_seed(0, "by chance"))
    as_good = np.zeros(2, int)
    right = told == y
    reached = np.array([right.sum(), right @ each_N])
    for n in _batches(len(y)):
        drawn = rng.permuted(np.broadcast_to(told, (n, len(y))), axis=1) == y
        as_good += (np.stack([drawn.sum(1), drawn @ each_N], 1) >= reached - 1e-9).sum(0)
    return float((1 + as_good.min()) / (1 + _PERMUTATIONS))


def _batches(n: int) -> Iterator[int]:
    """Numbers of permutations of ``n`` answers that are drawn at once, which bounds memory to tens of MB."""
    most = max(1, 2**21 // n)
    for done in range(0, _PERMUTATIONS, most):
        yield min(most, _PERMUTATIONS - done)


def answers(classifier: Classifier, x_NCHW: Tensor) -> Tensor:
    """Logits (N, K) on the CPU, computed in the same chunks as by a service."""
    return torch.cat([classifier(x).cpu() for x in x_NCHW.split(CHUNK)])


def spread(y_N: Tensor, n: int) -> Tensor:
    """At most ``n`` row numbers, sorted, balanced over the classes: rare classes are taken completely."""
    y_N = y_N.cpu()
    rank_N = torch.empty_like(y_N)
    for k in y_N.unique():
        rank_N[y_N == k] = torch.arange(int((y_N == k).sum()))
    return torch.argsort(rank_N, stable=True)[:n].sort().values
