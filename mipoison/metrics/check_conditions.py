"""The conditions of the validity checks: what each looks for in a record, and its tolerance.

A condition looks at one record and at the records in its :class:`CheckContext`. It returns True (raised),
False (passed) or None (not applicable: a number is missing, or there is no record to compare with).
"""

from __future__ import annotations

from mipoison.metrics.check_context import CheckContext, Record, errors, missing, number, same

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


def repeated_queries_differ(record: Record, context: CheckContext) -> bool | None:
    distance = number(record, "repeat_query_distance")
    return None if distance is None else distance > REPEAT_TOLERANCE


def no_better_than_mean_image(record: Record, context: CheckContext) -> bool | None:
    skill = number(record, "reconstruction_skill")
    return None if skill is None else skill <= 0


def adaptive_weaker_than_passive(record: Record, context: CheckContext) -> bool | None:
    error = number(record, "reconstruction_error")
    passive = errors(other for other in context.suite if other.get("attack") == "passive")
    if record.get("attack") == "passive" or error is None or not passive:
        return None
    return error > min(passive) * (1 + WEAKER_TOLERANCE)


def zero_budget_differs(record: Record, context: CheckContext) -> bool | None:
    error, distortion = number(record, "reconstruction_error"), number(record, "confidence_distortion")
    # Exactly 0: training amplifies differences of 1e-8, so only unchanged answers must give the same error.
    # The answers that the attacker trained on have to be unchanged too, as a defense may change only those.
    if error is None or distortion != 0 or number(record, "attack_set_distortion") not in (None, 0):
        return None
    undefended = errors(other for other in context.undefended if same(record, other, ("attack",)))
    if not undefended:
        return None
    return any(abs(error - other) > ZERO_BUDGET_TOLERANCE for other in undefended)


def below_label_only(record: Record, context: CheckContext) -> bool | None:
    error, agreement = number(record, "reconstruction_error"), number(record, "label_agreement")
    # A defense that changes labels in the attacker's own queries poisons the label-only view too.
    flips = agreement != 1 or number(record, "attack_set_label_agreement") not in (None, 1)
    floor = errors(context.label_only)
    if error is None or flips or not floor:
        return None
    worst = min([error, *errors(context.suite)])
    return worst > min(floor) * (1 + LABEL_ONLY_TOLERANCE)


def asked_nothing(record: Record, context: CheckContext) -> bool | None:
    queries = number(record, "queries")
    return None if queries is None else queries == 0


def training_unaffected(record: Record, context: CheckContext) -> bool | None:
    error, given = number(record, "clean_reconstruction_error"), number(record, "attack_set_distortion")
    if error is None or given is None or given <= GIVEN_TOLERANCE:
        return None
    if record.get("attack.view") in DISCARDING_VIEWS:
        return None
    twins = errors(
        other
        for other in context.undefended
        if same(record, other, ("attack",)) and not no_better_than_mean_image(other, context)
    )
    if number(record, "attack_set_label_agreement") in (None, 1):
        by_label = errors(other for other in context.undefended if other.get("attack") == LABEL_READER)
        if any(abs(error - other) <= SAME_TRAINING for other in by_label):
            return None
    return any(abs(error - other) <= SAME_TRAINING for other in twins) if twins else None


def label_recovered(record: Record, context: CheckContext) -> bool | None:
    recovery, agreement = number(record, "label_recovery"), number(record, "label_agreement")
    if recovery is None or agreement is None:
        return None
    return recovery > agreement + RECOVERY_TOLERANCE


def leaks_more_than_undefended(record: Record, context: CheckContext) -> bool | None:
    error, distortion = number(record, "reconstruction_error"), number(record, "confidence_distortion")
    undefended = errors(context.undefended)
    if error is None or not distortion or not undefended:
        return None
    return min([error, *errors(context.suite)]) < min(undefended) * (1 - WEAKER_TOLERANCE)


def unfit_judge(record: Record, context: CheckContext) -> bool | None:
    real, victim = number(record, "evaluator_accuracy"), number(record, "model_accuracy")
    judged, second = number(record, "attack_accuracy"), number(record, "open_accuracy")
    if real is None or judged is None:
        return None
    poorer = victim is not None and real < victim - JUDGE_TOLERANCE
    # With disjoint data the second evaluator knows more classes, so its accuracy may differ legitimately.
    comparable = record.get("auxiliary") == "same" and second is not None
    disagree = comparable and second is not None and judged - second > SECOND_JUDGE_TOLERANCE
    return poorer or judged > real + JUDGE_TOLERANCE or disagree


def beats_certificate(record: Record, context: CheckContext) -> bool | None:
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


def hidden_channel(record: Record, context: CheckContext) -> bool | None:
    p = number(record, "hidden_channel_p")
    return None if p is None else p <= HIDDEN_CHANNEL_LEVEL


def writes_image(record: Record, context: CheckContext) -> bool | None:
    found = [z for pool in ("", "_test") if (z := number(record, f"written_z{pool}")) is not None]
    return any(z > WRITTEN_Z for z in found) if found else None


def test_seen(record: Record, context: CheckContext) -> bool | None:
    seen = record.get("test_may_be_seen")
    return None if missing(seen) else bool(seen)
