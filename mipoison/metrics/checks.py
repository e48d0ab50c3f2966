"""Validity checks: columns that say when a record cannot be trusted.

A record is a flat mapping, one for each combination of victim, defense, attacker and seed. A check looks at
one record and at the records in its :class:`CheckContext`. It returns True (raised), False (passed) or None
(not applicable: a number is missing, the run failed, or there is no record to compare with).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mipoison.metrics.check_context import (
    CELL,
    CheckContext,
    Record,
    errors,
    missing,
    number,
    ok,
    same,
    settings,
)

REPEAT_TOLERANCE = 1e-6
"""Largest l2 distance between two answers to one query that rounding in float32 explains."""

WEAKER_TOLERANCE = 0.02
"""Share by which an adaptive attacker's error may exceed the passive attacker's."""

ZERO_BUDGET_TOLERANCE = 1e-6
"""Largest difference between two reconstruction errors that counts as equal."""

LABEL_ONLY_TOLERANCE = 0.005
"""Share by which the worst-case error may exceed the error on label-only answers. Of 214 combinations of seed
and label-keeping setting in the committed studies, 45 exceed it at all, 31 by more than 0.1 %, 24 by more
than 0.5 % and one by more than 2 %. With a tolerance of 2 % the check missed differences as large as those by
which settings are compared. A smaller excess still shows that the attackers failed, not that the defense
protects."""

GIVEN_TOLERANCE = 1e-4
"""Mean l2 distance of the attacker's training vectors from clean ones that must change what it learns."""

SAME_TRAINING = 1e-9
"""Largest difference in error that identifies two runs of the same training, which are equal bit by bit on a
CPU. On GPU kernels whose sums do not repeat, the check therefore does not find anything."""

LABEL_READER = "class-mean"
"""The attacker that reads labels alone, ``mipoison.attacks.LABEL_ATTACKER``. Where a defense keeps the labels
of its queries, its training is legitimately the same, and so is that of whoever answers as it does."""

DISCARDING_VIEWS = ("label-only", "rounding", "top-k")
"""Views that may remove everything that a defense changed, so that training is legitimately the same."""

RECOVERY_TOLERANCE = 0.05
"""Share of labels that may be recovered in addition to those that the first maximum shows."""

JUDGE_TOLERANCE = 0.1
"""Share by which the evaluator may be worse on real images than the victim, or than on reconstructions."""

SECOND_JUDGE_TOLERANCE = 0.25
"""Share by which the attack accuracies of the two evaluators may differ if both know the same classes."""

HIDDEN_CHANNEL_LEVEL = 0.001
"""Largest p value of the permutation test that counts as a hidden channel: one in a thousand settings without
one is called so by chance."""

WRITTEN_Z = 3.0
"""Standard deviations beyond chance at which a defense counts as writing the image. Two pools are tested, so
that 0.3 % of settings that write nothing exceed it on one of them."""

CERTIFICATE_ROUNDING = 1e-5
"""Share of a certified error by which sums in single precision may lie below it."""


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


def _repeated_queries_differ(record: Record, context: CheckContext) -> bool | None:
    distance = number(record, "repeat_query_distance")
    return None if distance is None else distance > REPEAT_TOLERANCE


def _no_better_than_mean_image(record: Record, context: CheckContext) -> bool | None:
    skill = number(record, "reconstruction_skill")
    return None if skill is None else skill <= 0


def _adaptive_weaker_than_passive(record: Record, context: CheckContext) -> bool | None:
    error = number(record, "reconstruction_error")
    passive = errors(other for other in context.suite if other.get("attack") == "passive")
    if record.get("attack") == "passive" or error is None or not passive:
        return None
    return error > min(passive) * (1 + WEAKER_TOLERANCE)


def _zero_budget_differs(record: Record, context: CheckContext) -> bool | None:
    error, distortion = number(record, "reconstruction_error"), number(record, "confidence_distortion")
    # Exactly 0: training amplifies differences of 1e-8, so only unchanged answers must give the same error.
    # The answers that the attacker trained on have to be unchanged too, as a defense may change only those.
    if error is None or distortion != 0 or number(record, "attack_set_distortion") not in (None, 0):
        return None
    undefended = errors(other for other in context.undefended if same(record, other, ("attack",)))
    if not undefended:
        return None
    return any(abs(error - other) > ZERO_BUDGET_TOLERANCE for other in undefended)


def _below_label_only(record: Record, context: CheckContext) -> bool | None:
    error, agreement = number(record, "reconstruction_error"), number(record, "label_agreement")
    # A defense that changes labels in the attacker's own queries poisons the label-only view too.
    flips = agreement != 1 or number(record, "attack_set_label_agreement") not in (None, 1)
    floor = errors(context.label_only)
    if error is None or flips or not floor:
        return None
    worst = min([error, *errors(context.suite)])
    return worst > min(floor) * (1 + LABEL_ONLY_TOLERANCE)


def _asked_nothing(record: Record, context: CheckContext) -> bool | None:
    queries = number(record, "queries")
    return None if queries is None else queries == 0


def _training_unaffected(record: Record, context: CheckContext) -> bool | None:
    error, given = number(record, "clean_reconstruction_error"), number(record, "attack_set_distortion")
    if error is None or given is None or given <= GIVEN_TOLERANCE:
        return None
    if record.get("attack.view") in DISCARDING_VIEWS:
        return None
    twins = errors(
        other
        for other in context.undefended
        if same(record, other, ("attack",)) and not _no_better_than_mean_image(other, context)
    )
    if number(record, "attack_set_label_agreement") in (None, 1):
        by_label = errors(other for other in context.undefended if other.get("attack") == LABEL_READER)
        if any(abs(error - other) <= SAME_TRAINING for other in by_label):
            return None
    return any(abs(error - other) <= SAME_TRAINING for other in twins) if twins else None


def _label_recovered(record: Record, context: CheckContext) -> bool | None:
    recovery, agreement = number(record, "label_recovery"), number(record, "label_agreement")
    if recovery is None or agreement is None:
        return None
    return recovery > agreement + RECOVERY_TOLERANCE


def _leaks_more_than_undefended(record: Record, context: CheckContext) -> bool | None:
    error, distortion = number(record, "reconstruction_error"), number(record, "confidence_distortion")
    undefended = errors(context.undefended)
    if error is None or not distortion or not undefended:
        return None
    return min([error, *errors(context.suite)]) < min(undefended) * (1 - WEAKER_TOLERANCE)


def _unfit_judge(record: Record, context: CheckContext) -> bool | None:
    real, victim = number(record, "evaluator_accuracy"), number(record, "model_accuracy")
    judged, second = number(record, "attack_accuracy"), number(record, "open_accuracy")
    if real is None or judged is None:
        return None
    poorer = victim is not None and real < victim - JUDGE_TOLERANCE
    # With disjoint data the second evaluator knows more classes, so its accuracy may differ legitimately.
    comparable = record.get("auxiliary") == "same" and second is not None
    disagree = comparable and second is not None and judged - second > SECOND_JUDGE_TOLERANCE
    return poorer or judged > real + JUDGE_TOLERANCE or disagree


def _beats_certificate(record: Record, context: CheckContext) -> bool | None:
    found = []
    for pool in ("", "_test"):
        error, bound = (
            number(record, f"{name}{pool}") for name in ("reconstruction_error", "certified_error")
        )
        if error is not None and bound is not None:
            tolerance = number(record, f"certified_tolerance{pool}") or 0.0
            if tolerance and not missing(record.get("attack.matching")):
                continue  # with noise the bound is for answers that are reconstructed one at a time
            found.append(error < bound * (1 - CERTIFICATE_ROUNDING) - tolerance)
    return any(found) if found else None


def _hidden_channel(record: Record, context: CheckContext) -> bool | None:
    p = number(record, "hidden_channel_p")
    return None if p is None else p <= HIDDEN_CHANNEL_LEVEL


def _writes_image(record: Record, context: CheckContext) -> bool | None:
    found = [z for pool in ("", "_test") if (z := number(record, f"written_z{pool}")) is not None]
    return any(z > WRITTEN_Z for z in found) if found else None


def _test_seen(record: Record, context: CheckContext) -> bool | None:
    seen = record.get("test_may_be_seen")
    return None if missing(seen) else bool(seen)


CHECKS: dict[str, Check] = {
    "repeated_queries_differ": Check(
        "repeated_queries_differ",
        f"two answers to the same query are more than {REPEAT_TOLERANCE:g} apart (l2)",
        "the answer to a query varies, by fresh noise (an attacker who asks again and averages sees through "
        "part of it) or with the rest of the request (LFP that picks by request)",
        _repeated_queries_differ,
    ),
    "no_better_than_mean_image": Check(
        "no_better_than_mean_image",
        "the reconstruction skill is 0 or less",
        "the attacker does no better than answering the attack set's mean image to everything: it learned "
        "nothing about private images, so it is no evidence for the defense",
        _no_better_than_mean_image,
    ),
    "adaptive_weaker_than_passive": Check(
        "adaptive_weaker_than_passive",
        f"an attacker other than 'passive' has an error more than {WEAKER_TOLERANCE:.0%} above that of the "
        "best passive one on the same defense and seed",
        "the adaptation hurts the attacker: it is no test of robustness, use the worst case over the suite",
        _adaptive_weaker_than_passive,
    ),
    "zero_budget_differs": Check(
        "zero_budget_differs",
        "the distortion is exactly 0 (on the attack set too, where recorded) but the error is more than "
        f"{ZERO_BUDGET_TOLERANCE:g} off the undefended one of the same attacker and seed",
        "something besides the defense differs (data, seeds, training, or a device that does not repeat its "
        "sums): differences of this size are no effect of a defense",
        _zero_budget_differs,
    ),
    "below_label_only": Check(
        "below_label_only",
        "every label was kept (on the attack set too, where recorded), yet the least error over the suite is "
        f"more than {LABEL_ONLY_TOLERANCE:.1%} above the least error on label-only answers",
        "less seems to leak than from the label alone, which is impossible for an attacker who may discard "
        "the scores: the attackers are under-trained or poisoned, and the suite lacks a label-only view",
        _below_label_only,
    ),
    "asked_nothing": Check(
        "asked_nothing",
        "the meter counted no query",
        "the attacker learned from something else than the API's answers: its result is void",
        _asked_nothing,
    ),
    "training_unaffected": Check(
        "training_unaffected",
        f"the answers to the attacker's queries are more than {GIVEN_TOLERANCE:g} off (mean l2), yet on "
        "clean private vectors it reconstructs as its undefended twin does, within "
        f"{SAME_TRAINING:g}; not for the views {', '.join(DISCARDING_VIEWS)}, which may discard all "
        "that changed, nor where that twin's skill is 0 or less: it may answer everything alike; nor, where "
        f"the labels of its queries were kept, for {LABEL_READER} and whoever reconstructs as it does",
        "all else being equal it was trained on the clean vectors: it saw what an attacker cannot see",
        _training_unaffected,
    ),
    "label_recovered": Check(
        "label_recovered",
        "a reader of whole released vectors tells the clean label more often, by more than "
        f"{RECOVERY_TOLERANCE:g}, than the first maximum does",
        "the defense flips labels but leaves them readable in the rest of the vector: its label agreement "
        "and its cost in accuracy protect nothing",
        _label_recovered,
    ),
    "leaks_more_than_undefended": Check(
        "leaks_more_than_undefended",
        f"the least error over the suite is more than {WEAKER_TOLERANCE:.0%} below the least undefended one",
        "the answers hold more about the image than the victim's own: the defense writes something private "
        "into them, or its noise helped an attacker that over-fits",
        _leaks_more_than_undefended,
    ),
    "unfit_judge": Check(
        "unfit_judge",
        f"on real images the evaluator is more than {JUDGE_TOLERANCE:g} below the victim, or below its own "
        "share of recognised reconstructions, or (same classes on both sides) the second evaluator "
        f"recognises {SECOND_JUDGE_TOLERANCE:g} less of them",
        "the evaluator is too poor, or was trained on reconstructions: attack accuracy says nothing here, "
        "use the reconstruction error",
        _unfit_judge,
    ),
    "beats_certificate": Check(
        "beats_certificate",
        "on private training or test images the error is below the certified one by more than its tolerance "
        f"(where noise is sampled) and {CERTIFICATE_ROUNDING:g} of it; with noise, not for attackers that "
        "match the vectors of a batch, as that bound is for answers that are reconstructed one at a time",
        "no attacker can do that with one answer to each image: something reached it that must not have, or "
        "the defense answers otherwise than it states",
        _beats_certificate,
    ),
    "hidden_channel": Check(
        "hidden_channel",
        "among vectors that look alike to two decimals, signs of zeros, sums, low-order digits or the order "
        f"of near ties follow the private image (permutation test, p at most {HIDDEN_CHANNEL_LEVEL:g})",
        "the answers carry something of the image where no user looks and no attacker of the suite does: "
        "the measured leakage is too low, release a canonical form",
        _hidden_channel,
    ),
    "writes_image": Check(
        "writes_image",
        "with one constant vector per label in place of the classifier's, an attacker's reconstructions fit "
        f"their own image better than others of the label, by more than {WRITTEN_Z:g} standard deviations of "
        "chance (private training or test images); only for defenses that read the image",
        "the defense itself writes of the query's image into its answer: `written_excess` is how much this "
        "attacker reads of it, beside all that the vector says. A certificate counts it already",
        _writes_image,
    ),
    "test_seen": Check(
        "test_seen",
        "the classifier is the user's own, and the data do not say which images it was not trained on "
        "(a folder `test/` in `folder:PATH`, or a test set of the source's own)",
        "the classifier may have been trained on the private test images: accuracy, distortion and all else "
        "that is measured on them hold for training images, not for new ones; add `test/`",
        _test_seen,
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
