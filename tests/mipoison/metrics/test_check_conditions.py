"""A planted fault raises its check and no other; sound records raise none."""

from __future__ import annotations

import math

import pytest

from mipoison.attacks import LABEL_ATTACKER
from mipoison.metrics import CheckContext, apply_checks
from mipoison.metrics.check_conditions import LABEL_READER
from tests.mipoison.metrics.check_records import SUITE, UNDEFENDED, context, raised, record


def test_a_sound_record_raises_nothing_and_says_what_was_looked_at():
    assert apply_checks(SUITE[0], context()) == {
        "check.repeated_queries_differ": False,
        "check.no_better_than_mean_image": False,
        "check.adaptive_weaker_than_passive": False,
        "check.zero_budget_differs": None,  # its distortion is not 0
        "check.below_label_only": False,
        "check.asked_nothing": False,
        "check.training_unaffected": False,
        "check.label_recovered": False,
        "check.leaks_more_than_undefended": False,
        "check.unfit_judge": False,
        "check.beats_certificate": None,  # there is none
        "check.hidden_channel": None,  # not tested
        "check.writes_image": None,  # the defense does not read it
        "check.test_seen": None,  # records of before do not say
    }
    assert apply_checks(SUITE[1], context())["check.adaptive_weaker_than_passive"] is None  # passive itself
    assert not raised(apply_checks(UNDEFENDED[0], context(UNDEFENDED)))
    assert apply_checks(UNDEFENDED[0], context(UNDEFENDED))["check.zero_budget_differs"] is False


@pytest.mark.parametrize(
    ("fault", "changes"),
    [
        ("repeated_queries_differ", {"repeat_query_distance": 1e-4}),
        ("no_better_than_mean_image", {"reconstruction_skill": 0.0}),
        ("no_better_than_mean_image", {"reconstruction_skill": -0.3}),
        ("adaptive_weaker_than_passive", {"reconstruction_error": 0.0264 * 1.03}),
        # error 0.0262, undefended restorer 0.0205
        ("zero_budget_differs", {"confidence_distortion": 0.0, "attack_set_distortion": 0.0}),
        ("asked_nothing", {"queries": 0}),
        ("training_unaffected", {"clean_reconstruction_error": 0.0205}),
        ("label_recovered", {"label_agreement": 0.9, "label_recovery": 0.96}),
        ("leaks_more_than_undefended", {"reconstruction_error": 0.0201 * 0.97}),
        ("unfit_judge", {"evaluator_accuracy": 0.85}),
        ("unfit_judge", {"attack_accuracy": 0.9, "open_accuracy": 0.6}),
        ("beats_certificate", {"certified_error": 0.0263}),
        ("beats_certificate", {"certified_error": 0.0273, "certified_tolerance": 0.001}),
        ("beats_certificate", {"certified_error_test": 0.03, "reconstruction_error_test": 0.0299}),
        ("beats_certificate", {"certified_error": 0.0263, "attack.matching": "power"}),
        ("hidden_channel", {"hidden_channel_p": 0.0005}),
        ("writes_image", {"written_z": 3.1}),
        ("test_seen", {"test_may_be_seen": True}),
        ("writes_image", {"written_z": -1.0, "written_z_test": 3.1}),
    ],
)
def test_a_planted_fault_raises_its_check_alone(fault, changes):
    assert raised(apply_checks({**SUITE[0], **changes}, context())) == {fault}


@pytest.mark.parametrize(("told", "found"), [(False, False), (None, None), (float("nan"), None)])
def test_test_images_that_the_victim_has_not_seen(told, found):
    assert apply_checks({**SUITE[0], "test_may_be_seen": told}, context())["check.test_seen"] is found


@pytest.mark.parametrize(
    "changes",
    [
        {"certified_error": 0.0262},  # the bound itself can be reached
        {"certified_error": 0.0262 * (1 + 5e-6)},  # within rounding
        {"certified_error": 0.0271, "certified_tolerance": 0.001},  # a lucky run, within its tolerance
        {"certified_error": 0.0201, "certified_error_test": 0.03, "reconstruction_error_test": None},
    ],
)
def test_what_a_certificate_allows_raises_nothing(changes):
    assert apply_checks({**SUITE[0], **changes}, context())["check.beats_certificate"] is False


def test_a_certificate_with_noise_says_nothing_of_an_attacker_that_matches_a_batch():
    """It holds for answers that are reconstructed one at a time."""
    beaten = {"certified_error": 0.03, "certified_tolerance": 0.001}
    for matching, expected in (("power", None), (None, True), (math.nan, True)):
        row = {**SUITE[0], **beaten, "attack.matching": matching}
        assert apply_checks(row, context())["check.beats_certificate"] is expected


def test_a_p_value_that_chance_explains_is_no_hidden_channel():
    row = {**SUITE[0], "hidden_channel_p": 0.02}
    assert apply_checks(row, context())["check.hidden_channel"] is False


@pytest.mark.parametrize("z", [-5.0, 0.0, 2.9])
def test_chance_is_not_taken_for_a_written_image(z):
    changes = {"written_z": z, "written_z_test": 0.5, "written_excess": 0.1}
    assert apply_checks({**SUITE[0], **changes}, context())["check.writes_image"] is False


def test_below_label_only_looks_at_the_whole_suite():
    weak = [record(attack="restorer", error=0.0270), record(attack="passive", error=0.0275)]
    assert raised(apply_checks(weak[0], context(weak))) == {"below_label_only"}
    assert raised(apply_checks(weak[1], context(weak))) == {"below_label_only"}
    # one sibling at the floor (that of the best label-only attacker) clears the suite, a failed one does not
    sibling = record(attack="label-only", error=0.0263)
    assert not raised(apply_checks(weak[0], context([*weak, sibling])))
    failed = {**sibling, "status": "failed"}
    assert raised(apply_checks(weak[0], context([*weak, failed]))) == {"below_label_only"}


@pytest.mark.parametrize(("share", "expected"), [(1.004, False), (1.006, True)])
def test_below_label_only_is_as_sharp_as_the_differences_that_are_compared(share, expected):
    suite = [record(attack="passive", error=0.0263 * share)]
    assert apply_checks(suite[0], context(suite))["check.below_label_only"] is expected


@pytest.mark.parametrize(("share", "expected"), [(1.015, False), (1.025, True)])
def test_the_tolerance_of_adaptive_attackers_is_two_percent(share, expected):
    adaptive = record(attack="restorer", error=0.02 * share)
    suite = [adaptive, record(attack="passive", error=0.02), record(attack="passive", error=0.05)]
    assert apply_checks(adaptive, context(suite))["check.adaptive_weaker_than_passive"] is expected


def test_below_label_only_does_not_apply_where_labels_flip():
    flipping = record(error=0.04, label_agreement=0.95)
    assert apply_checks(flipping, context([flipping]))["check.below_label_only"] is None
    for agreement, expected in ((0.95, None), (1.0, True), (None, True)):  # on the attacker's own queries
        weak = record(error=0.04, attack_set_label_agreement=agreement)
        assert apply_checks(weak, context([weak]))["check.below_label_only"] is expected


def test_zero_budget_is_zero_on_the_attack_set_too():
    assert record()["attack_set_distortion"] == 0.01
    for distortion, expected in ((0.01, None), (0.0, True), (None, True)):
        moved = record(error=0.03, confidence_distortion=0.0, attack_set_distortion=distortion)
        assert apply_checks(moved, context([moved]))["check.zero_budget_differs"] is expected


def test_zero_budget_compares_the_same_attacker_only():
    same = record(attack="restorer", error=0.0205, confidence_distortion=0.0, attack_set_distortion=0.0)
    assert apply_checks(same, context())["check.zero_budget_differs"] is False
    assert (
        apply_checks({**same, "reconstruction_error": 0.0205 + 5e-7}, context())["check.zero_budget_differs"]
        is False
    )
    assert (
        apply_checks({**same, "reconstruction_error": 0.0205 + 5e-6}, context())["check.zero_budget_differs"]
        is True
    )
    for other in ({"attack": "knn"}, {"attack.features": "raw"}):
        assert apply_checks({**same, **other}, context())["check.zero_budget_differs"] is None


@pytest.mark.parametrize(("skill", "expected"), [(0.4, True), (0.0, None), (-0.003, None), (None, True)])
def test_a_saturated_attacker_is_not_accused_of_seeing_clean_vectors(skill, expected):
    """An attacker that reconstructs the same image for all vectors has the same error after any training."""
    same = {**SUITE[0], "clean_reconstruction_error": 0.0205}
    twins = tuple({**row, "reconstruction_skill": skill} for row in UNDEFENDED)
    assert apply_checks(same, CheckContext((), twins, ()))["check.training_unaffected"] is expected


@pytest.mark.parametrize("view", ["label-only", "rounding", "top-k"])
def test_views_that_discard_scores_may_train_as_undefended(view):
    same = {**SUITE[0], "clean_reconstruction_error": 0.0205}
    assert apply_checks(same, context())["check.training_unaffected"] is True
    twin = tuple({**row, "attack.view": view} for row in UNDEFENDED)
    mine = {**same, "attack.view": view}
    assert apply_checks(mine, CheckContext((), twin, ()))["check.training_unaffected"] is None
    tiny = {**same, "attack_set_distortion": 1e-5}
    assert apply_checks(tiny, context())["check.training_unaffected"] is None


@pytest.mark.parametrize(
    ("attack", "clean", "agreement", "expected"),
    [
        ("class-mean", 0.03, 1.0, None),  # it reads labels, which the defense kept
        ("class-mean", 0.03, None, None),  # older records
        ("trees", 0.03, 1.0, None),  # answers with the label's mean image
        ("class-mean", 0.03, 0.9, True),  # labels were flipped, and it saw the clean ones
        ("trees", 0.0205, 1.0, True),  # reads more than the label
    ],
)
def test_who_reads_labels_alone_may_train_as_undefended(attack, clean, agreement, expected):
    mine = {**SUITE[0], "attack": attack, "clean_reconstruction_error": clean}
    mine["attack_set_label_agreement"] = agreement
    twins = (
        {**UNDEFENDED[0], "attack": "class-mean", "reconstruction_error": 0.03},
        {**UNDEFENDED[0], "attack": "trees", "reconstruction_error": clean},
    )
    assert apply_checks(mine, CheckContext((), twins, ()))["check.training_unaffected"] is expected


def test_the_attacker_that_reads_labels_is_that_of_the_suite():
    assert LABEL_READER == LABEL_ATTACKER


def test_the_second_judge_counts_only_where_the_classes_are_the_same():
    odd = {**SUITE[0], "auxiliary": "disjoint", "attack_accuracy": 0.9, "open_accuracy": 0.2}
    assert apply_checks(odd, CheckContext())["check.unfit_judge"] is False
