"""Validity checks: columns that say when a record cannot be trusted.

A record is a flat mapping, one for each combination of victim, defense, attacker and seed. A check looks at
one record and at the records in its :class:`CheckContext`. It returns True (raised), False (passed) or None
(not applicable: a number is missing, the run failed, or there is no record to compare with).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mipoison.metrics import check_conditions as conditions
from mipoison.metrics.check_conditions import (
    CERTIFICATE_ROUNDING,
    DISCARDING_VIEWS,
    GIVEN_TOLERANCE,
    HIDDEN_CHANNEL_LEVEL,
    JUDGE_TOLERANCE,
    LABEL_ONLY_TOLERANCE,
    LABEL_READER,
    RECOVERY_TOLERANCE,
    REPEAT_TOLERANCE,
    SAME_TRAINING,
    SECOND_JUDGE_TOLERANCE,
    WEAKER_TOLERANCE,
    WRITTEN_Z,
    ZERO_BUDGET_TOLERANCE,
)
from mipoison.metrics.check_context import CELL, CheckContext, Record, ok, same, settings


@dataclass(frozen=True)
class Check:
    """One validity check.

    Attributes:
        name: column name without the prefix ``check.``.
        raised_if: the condition, in words.
        means: what a raised check says about the record.
        function: (record, context) -> whether it is raised, or None if it does not apply.
    """

    name: str
    raised_if: str
    means: str
    function: Callable[[Record, CheckContext], bool | None]


CHECKS: dict[str, Check] = {
    "repeated_queries_differ": Check(
        "repeated_queries_differ",
        f"two answers to the same query are more than {REPEAT_TOLERANCE:g} apart (l2)",
        "the answer to a query varies, by fresh noise (an attacker who asks again and averages sees through "
        "part of it) or with the rest of the request (LFP that picks by request)",
        conditions.repeated_queries_differ,
    ),
    "no_better_than_mean_image": Check(
        "no_better_than_mean_image",
        "the reconstruction skill is 0 or less",
        "the attacker does no better than answering the attack set's mean image to everything: it learned "
        "nothing about private images, so it is no evidence for the defense",
        conditions.no_better_than_mean_image,
    ),
    "adaptive_weaker_than_passive": Check(
        "adaptive_weaker_than_passive",
        f"an attacker other than 'passive' has an error more than {WEAKER_TOLERANCE:.0%} above that of the "
        "best passive one on the same defense and seed",
        "the adaptation hurts the attacker: it is no test of robustness, use the worst case over the suite",
        conditions.adaptive_weaker_than_passive,
    ),
    "zero_budget_differs": Check(
        "zero_budget_differs",
        "the distortion is exactly 0 (on the attack set too, where recorded) but the error is more than "
        f"{ZERO_BUDGET_TOLERANCE:g} off the undefended one of the same attacker and seed",
        "something besides the defense differs (data, seeds, training, or a device that does not repeat its "
        "sums): differences of this size are no effect of a defense",
        conditions.zero_budget_differs,
    ),
    "below_label_only": Check(
        "below_label_only",
        "every label was kept (on the attack set too, where recorded), yet the least error over the suite is "
        f"more than {LABEL_ONLY_TOLERANCE:.1%} above the least error on label-only answers",
        "less seems to leak than from the label alone, which is impossible for an attacker who may discard "
        "the scores: the attackers are under-trained or poisoned, and the suite lacks a label-only view",
        conditions.below_label_only,
    ),
    "asked_nothing": Check(
        "asked_nothing",
        "the meter counted no query",
        "the attacker learned from something else than the API's answers: its result is void",
        conditions.asked_nothing,
    ),
    "training_unaffected": Check(
        "training_unaffected",
        f"the answers to the attacker's queries are more than {GIVEN_TOLERANCE:g} off (mean l2), yet on "
        "clean private vectors it reconstructs as its undefended twin does, within "
        f"{SAME_TRAINING:g}; not for the views {', '.join(DISCARDING_VIEWS)}, which may discard all "
        "that changed, nor where that twin's skill is 0 or less: it may answer everything alike; nor, where "
        f"the labels of its queries were kept, for {LABEL_READER} and whoever reconstructs as it does",
        "all else being equal it was trained on the clean vectors: it saw what an attacker cannot see",
        conditions.training_unaffected,
    ),
    "label_recovered": Check(
        "label_recovered",
        "a reader of whole released vectors tells the clean label more often, by more than "
        f"{RECOVERY_TOLERANCE:g}, than the first maximum does",
        "the defense flips labels but leaves them readable in the rest of the vector: its label agreement "
        "and its cost in accuracy protect nothing",
        conditions.label_recovered,
    ),
    "leaks_more_than_undefended": Check(
        "leaks_more_than_undefended",
        f"the least error over the suite is more than {WEAKER_TOLERANCE:.0%} below the least undefended one",
        "the answers hold more about the image than the victim's own: the defense writes something private "
        "into them, or its noise helped an attacker that over-fits",
        conditions.leaks_more_than_undefended,
    ),
    "unfit_judge": Check(
        "unfit_judge",
        f"on real images the evaluator is more than {JUDGE_TOLERANCE:g} below the victim, or below its own "
        "share of recognised reconstructions, or (same classes on both sides) the second evaluator "
        f"recognises {SECOND_JUDGE_TOLERANCE:g} less of them",
        "the evaluator is too poor, or was trained on reconstructions: attack accuracy says nothing here, "
        "use the reconstruction error",
        conditions.unfit_judge,
    ),
    "beats_certificate": Check(
        "beats_certificate",
        "on private training or test images the error is below the certified one by more than its tolerance "
        f"(where noise is sampled) and {CERTIFICATE_ROUNDING:g} of it; with noise, not for attackers that "
        "match the vectors of a batch, as that bound is for answers that are reconstructed one at a time",
        "no attacker can do that with one answer to each image: something reached it that must not have, or "
        "the defense answers otherwise than it states",
        conditions.beats_certificate,
    ),
    "hidden_channel": Check(
        "hidden_channel",
        "among vectors that look alike to two decimals, signs of zeros, sums, low-order digits or the order "
        f"of near ties follow the private image (permutation test, p at most {HIDDEN_CHANNEL_LEVEL:g})",
        "the answers carry something of the image where no user looks and no attacker of the suite does: "
        "the measured leakage is too low, release a canonical form",
        conditions.hidden_channel,
    ),
    "writes_image": Check(
        "writes_image",
        "with one constant vector per label in place of the classifier's, an attacker's reconstructions fit "
        f"their own image better than others of the label, by more than {WRITTEN_Z:g} standard deviations of "
        "chance (private training or test images); only for defenses that read the image",
        "the defense itself writes of the query's image into its answer: `written_excess` is how much this "
        "attacker reads of it, beside all that the vector says. A certificate counts it already",
        conditions.writes_image,
    ),
    "test_seen": Check(
        "test_seen",
        "the classifier is the user's own, and the data do not say which images it was not trained on "
        "(a folder `test/` in `folder:PATH`, or a test set of the source's own)",
        "the classifier may have been trained on the private test images: accuracy, distortion and all else "
        "that is measured on them hold for training images, not for new ones; add `test/`",
        conditions.test_seen,
    ),
}


def apply_checks(record: Record, context: CheckContext) -> dict[str, bool | None]:
    """Run all checks on one record.

    Returns:
        Columns ``check.<name>``; all are None if the record's status is not ``ok``.

    Raises:
        ValueError: a record has no status or a value that is not a number, or a record of the context has
            another dataset, split, seed or victim, or (in the suite) another defense.
    """
    if not ok(record):
        return {f"check.{name}": None for name in CHECKS}
    for role, records, names in (
        ("suite", context.suite, (*CELL, "defense")),
        ("undefended", context.undefended, CELL),
        ("label_only", context.label_only, CELL),
    ):
        for other in filter(ok, records):  # the record of a failed run may lack its split
            for name in names:
                if not same(record, other, (name,)):
                    raise ValueError(
                        f"a {role} record belongs to another {name}: {settings(other, name)} "
                        f"beside {settings(record, name)}"
                    )
    return {f"check.{name}": check.function(record, context) for name, check in CHECKS.items()}


def checks_table() -> list[tuple[str, str, str]]:
    """Rows (column, raised if, means) for the documentation, in the order of :data:`CHECKS`."""
    return [(f"check.{name}", check.raised_if, check.means) for name, check in CHECKS.items()]
