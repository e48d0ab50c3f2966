"""The claims, each an entry with the rule by which it stands. To add one, add an entry to CLAIMS.

A rule names no study: it is read from every study that has such settings. It was written before the records
that decide it: change a rule only together with its ``id``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from study.paper.claims.evidence import Evidence, Setting, setting
from study.paper.claims.quantities import (
    ERROR,
    TEST,
    TRAIN,
    Certified,
    Column,
    Drop,
    Excess,
    GainOver,
    Quantity,
    Sign,
    Strongest,
)
from study.paper.claims.readings import Reading, distinct
from study.paper.claims.rules import DISTORTION, Always, Difference, Mean, Rule
from study.paper.claims.trend import Trend

PAPER, OURS, WITHDRAWN = "Zhou et al.", "FINDINGS", "FINDINGS, first version"
PURIFIER, MID = "Yang et al. 2020 (Purifier)", "Wang et al. 2020 (MID)"
MARGIN = 0.02
"""Excess leakage that counts as none, and loss of accuracy that counts as none: the project's defaults."""
SAME = 0.05
"""Errors that differ by less than this share count as equal."""


@dataclass(frozen=True)
class Claim:
    """A sentence that records may refute.

    Attributes:
        id: short and stable.
        text: the claim.
        source: who says it, and where. Ours: whether it was withdrawn.
        rule: what decides it.
        every: whether all readings of the records have to hold; else one is enough.
        auxiliary: only studies in which the attacker's images are of the ``same`` or of ``disjoint`` classes.
    """

    id: str
    text: str
    source: str
    rule: Rule
    every: bool = True
    auxiliary: Literal["same", "disjoint"] | None = None

    @property
    def rule_text(self) -> str:
        """The rule in words."""
        where = f", attacker's images of {self.auxiliary} classes" if self.auxiliary else ""
        return f"{'all' if self.every else 'some'} readings{where}: {self.rule}"

    def readings(self, studies: Sequence[Evidence]) -> list[Reading]:
        """What the studies say of it; of equal scenes and settings the one with the most seeds."""
        chosen = [s for s in studies if self.auxiliary in (None, s.auxiliary)]
        return distinct([reading for study in chosen for reading in self.rule.readings(study)])

    def left_out(
        self, studies: Sequence[Evidence], readings: Sequence[Reading]
    ) -> dict[tuple[str, ...], str]:
        """Settings of which there is no reading, on one pool of images or on both, since they were screened.

        Args:
            readings: those of all studies: what one study left out another one may have.

        Returns:
            Key (without pool and attackers) -> data set.
        """
        known = {reading.key[:-1] for reading in readings}
        return {
            key[:-1]: study.dataset
            for study in studies
            if self.auxiliary in (None, study.auxiliary)
            for key in self.rule.left_out(study)
            if key not in known
        }


NONE, LABEL, NOISE, LPA = setting("none"), setting("label-only"), setting("noise"), setting("lpa")
PAPER_LPA = setting("lpa", keep_label=True, search="descent", substitute_extra_blocks=0)
"""As the paper describes it; its Table VI alone lets labels change."""
TAIL_NOISE = setting("tail-noise", budget=(0.0095, 0.0105))
PASSIVE = Column(ERROR, "passive")
"""Error of the paper's attacker, on private training images as in the paper."""


def both(attack: str) -> Column:
    """Error of an attacker on private train and on private test images."""
    return Column(ERROR, attack, (TRAIN, TEST))


def raises(of: Setting, than: Setting, quantity: Quantity = PASSIVE, match: str | None = None) -> Difference:
    """A defense raises the error of the paper's attacker more than another one does."""
    return Difference(quantity, of, "above", 0, than=than, how="relative", match=match)


def hides_more(of: Setting, sign: Sign = "below") -> Difference:
    """A defense leaks less than noise of equal distortion."""
    return Difference(Excess(), of, sign, 0, than=NOISE, match="distortion", cut=True)


def worse(a: Quantity, b: Quantity, of: Setting, sign: Sign = "above", **more: Any) -> Difference:
    """An attacker has a larger error than another one, behind the same defense."""
    return Difference(a, of, sign, 0, than=of, other=b, how="relative", **more)


CLAIMS = (
    # What the paper says.
    Claim("P01", "LPA raises the error of the attacker that it is aimed at", f"{PAPER}, Table I",
          raises(PAPER_LPA, NONE), auxiliary="disjoint"),
    Claim("P02", "LPA lowers the attack accuracy", f"{PAPER}, Table I",
          Difference(Column("attack_accuracy", "passive"), PAPER_LPA, "below", 0, than=NONE),
          auxiliary="disjoint"),
    Claim("P03", "LPA keeps the label of every answer", f"{PAPER}, V-B and Table I; {OURS}",
          Always("label_agreement", setting("lpa", keep_label=True), least=1)),
    Claim("P04", "It is the alignment that protects: LPA raises the error more than noise of an equal budget",
          f"{PAPER}, V-B1 and VII-B6", raises(PAPER_LPA, NOISE, match="budget"), auxiliary="disjoint"),
    Claim("P05", "LPA protects more than MID", f"{PAPER}, Table I and VII-B7",
          raises(PAPER_LPA, setting("mid")), auxiliary="disjoint"),
    Claim("P06", "LPA changes the answers less than MID does", f"{PAPER}, Table I and VII-B7",
          Difference(DISTORTION, PAPER_LPA, "below", 0, than=setting("mid"), how="relative"),
          auxiliary="disjoint"),
    Claim("P07", "LPA protects more than LFP", f"{PAPER}, Table I",
          raises(PAPER_LPA, setting("lfp")), auxiliary="disjoint"),
    Claim("P08", "The defender's loss does not matter", f"{PAPER}, Table II",
          Difference(PASSIVE, setting("lpa", loss="psnr"), "within", SAME, how="relative", match="budget",
                     than=setting("lpa", loss="mse", keep_label=True, substitute_extra_blocks=0))),
    Claim("P09", "The defender's data do not matter", f"{PAPER}, Table III",
          Difference(Column(ERROR, "mismatched-data"), setting("lpa", substitute_data="D1"), "within", SAME,
                     than=setting("lpa", substitute_data="D2"), how="relative", match="budget")),
    Claim("P10", "LPA raises the error of a deeper decoder, too", f"{PAPER}, Table IV",
          raises(PAPER_LPA, NONE, Column(ERROR, "mismatched-architecture"))),
    Claim("P11", "LPA lowers the attack accuracy of a diffusion model", f"{PAPER}, Table V",
          Difference(Column("attack_accuracy", "diffusion-2"), PAPER_LPA, "below", 0, than=NONE)),
    Claim("P12", "A larger budget protects more", f"{PAPER}, Table VI",
          Trend(PASSIVE, LPA, "budget", "above")),
    Claim("P13", "LPA protects more than gradient ascent (PGD)", f"{PAPER}, Table VII",
          raises(PAPER_LPA, setting("pgd")), auxiliary="disjoint"),
    Claim("P14", "LPA protects more than Poi-MSE", f"{PAPER}, Table VII",
          raises(PAPER_LPA, setting("poi-mse")), auxiliary="disjoint"),
    Claim("P15", "LPA protects more than AdvExa", f"{PAPER}, Table VII",
          raises(PAPER_LPA, setting("advexa")), auxiliary="disjoint"),
    Claim("P16", "OnePara's distortion is 0.9 or more", f"{PAPER}, Table VII",
          Mean(DISTORTION, setting("onepara"), "above", 0.9)),
    Claim("P17", "The amortised LPA is ten times as fast as the optimisation", f"{PAPER}, Table IX",
          Difference(Column("poison_ms_per_sample"), setting("lpa-amortised"), "below", -1, than=PAPER_LPA,
                     how="log10")),
    Claim("P18", "It is LPA that makes an adaptive attacker (softmax) worse than the passive one",
          f"{PAPER}, Table X and V-D2", worse(Column(ERROR, "softmax"), PASSIVE, PAPER_LPA, twice=NONE)),
    Claim("P19", "Behind LPA, who adds noise to the answers does worse than the passive attacker",
          f"{PAPER}, Table X", worse(Column(ERROR, "noise"), PASSIVE, PAPER_LPA)),
    Claim("P20", "Undefended, the attacker beats who sees labels alone, with images of other classes",
          f"{PAPER}, Introduction and Table I",
          Difference(PASSIVE, NONE, "below", 0, than=LABEL, how="relative"), auxiliary="disjoint"),
    # What we said.
    Claim("F01", "Undefended answers leak beyond the label", OURS,
          Mean(Excess(), NONE, "above", MARGIN, some_pool=True), auxiliary="same"),
    Claim("F02", "Tail noise of length 0.01 leaves nothing beyond the label", WITHDRAWN,
          Mean(Excess(), TAIL_NOISE, "below", MARGIN), auxiliary="same"),
    Claim("F03", "Rounding to two decimals removes nearly all that answers leak", WITHDRAWN,
          Mean(Excess(), setting("rounding", decimals=2), "below", MARGIN), auxiliary="same"),
    Claim("F04", "Noise of length 0.015 leaves nothing beyond the label", WITHDRAWN,
          Mean(Excess(), setting("noise", budget=0.015), "below", MARGIN), auxiliary="same"),
    Claim("F05", "Rounding to one decimal is certified", f"{WITHDRAWN} (of test images)",
          Mean(Certified(), setting("rounding", decimals=1), "below", MARGIN)),
    Claim("F06", "There is a codebook that is certified", "README",
          Mean(Certified(), setting("codebook"), "below", MARGIN), every=False),
    Claim("F07", "Nothing measured contradicts a certificate", f"{OURS} and README",
          Always("check.beats_certificate", most=0, known="certified_excess")),
    Claim("F08", "Label-only is the floor: there, no attacker gains over the mean image of the label", OURS,
          Mean(GainOver("class-mean"), LABEL, "below", MARGIN)),
    Claim("F09", "LPA leaks less than noise of equal distortion", f"{PAPER}, VII-B6; of LFW {WITHDRAWN}",
          hides_more(LPA), auxiliary="same"),
    Claim("F10", "LPA that aligns (restarts) leaks more than noise of equal distortion", OURS,
          hides_more(setting("lpa", search="restarts"), "above"), auxiliary="same"),
    Claim("F11", "LPA against several substitutes leaks less than noise of equal distortion",
          f"{OURS}: meant to be the stronger defense", hides_more(setting("lpa-ensemble")), auxiliary="same"),
    Claim("F12", "LPA by descent hardly aligns: the cosine rises by less than 0.05", OURS,
          Difference(Column("alignment_after"), setting("lpa", search="descent"), "below", 0.05,
                     than=setting("lpa", search="descent"), other=Column("alignment_before"))),
    Claim("F13", "LPA writes the private image into the answer", OURS,
          Mean(Column("written_z"), LPA, "above", 3)),
    Claim("F14", "Noise writes nothing of the image into the answer", OURS,
          Mean(Column("written_z"), NOISE, "below", 3)),
    Claim("F15", "Query-keyed noise is as good as noise drawn anew", WITHDRAWN,
          Difference(Excess(), NOISE, "within", MARGIN, than=setting("noise-fresh"), match="budget",
                     cut=True)),
    Claim("F16", "The paper's adaptive attacker (softmax) is weaker than its passive one, undefended", OURS,
          worse(both("softmax"), both("passive"), NONE), auxiliary="same"),
    Claim("F17", "A small MLP reads more than the paper's decoder, undefended", OURS,
          worse(both("mlp"), both("passive"), NONE, "below"), auxiliary="same"),
    Claim("F18", "LPA does not bring the attack accuracy below that of the label alone (by 0.02)", OURS,
          Mean(Strongest("attack_accuracy", above_label=True, pools=(TRAIN,)), LPA, "above", -0.02),
          auxiliary="same"),
    Claim("F19", "Training images show the leak: ridge regression reads test images no better, behind LPA",
          f"{WITHDRAWN} (implied by its tables)",
          worse(Column(ERROR + TEST, "ridge"), Column(ERROR, "ridge"), LPA), auxiliary="same"),
    Claim("F20", "Behind LPA, who asks about mixtures of images reads more than ridge regression", OURS,
          worse(both("mixtures"), both("ridge"), LPA, "below"), auxiliary="same"),
    Claim("F21", "LPA lets attackers tell images of one label apart (AUC above 0.5)", OURS,
          Mean(Strongest("identification_auc"), LPA, "above", 0.5, some_pool=True)),
    Claim("F22", "Tail noise of length 0.01 orders the scores worse than label-only does", OURS,
          Difference(Column("rank_correlation"), TAIL_NOISE, "below", 0, than=LABEL)),
    # What rival defenses say of themselves, as far as it is about inversion or carries over to it.
    Claim("R01", "Purifier raises the error of inversion", PURIFIER, raises(setting("purifier"), NONE)),
    Claim("R02", "Purifier costs no accuracy (at most 0.01)", PURIFIER,
          Mean(Drop(), setting("purifier"), "below", 0.01)),
    Claim("R03", "Purifier leaves nothing beyond the label", f"{PURIFIER}, read strictly",
          Mean(Excess(), setting("purifier"), "below", MARGIN)),
    Claim("R04", "MemGuard changes no label", "Jia et al. 2019 (MemGuard)",
          Always("label_agreement", setting("memguard"), least=1)),
    Claim("R05", "MemGuard hides more than noise of equal distortion",
          "Jia et al. 2019 (MemGuard), of membership", hides_more(setting("memguard"))),
    Claim("R06", "MAD hides more than noise of equal distortion",
          "Orekondy et al. 2020 (MAD), of model stealing", hides_more(setting("mad"))),
    Claim("R07", "AdvExa raises the error of the decoder that it is aimed at", "Wen et al. 2021 (AdvExa)",
          raises(setting("advexa"), NONE)),
    Claim("R08", "Stealthy Shield hides more than noise of equal distortion",
          "Zhuang et al. 2025 (Stealthy Shield, ICLR)", hides_more(setting("stealthy-shield"))),
    Claim("R09", "Robust Privacy lowers what inversion reads", "Jin et al. 2026 (arXiv 2601.17360)",
          Difference(Excess(), setting("robust-privacy"), "below", 0, than=NONE, cut=True)),
    Claim("R10", "MID raises the error of inversion", MID, raises(setting("mid"), NONE)),
    Claim("R11", "MID costs at most 0.02 of accuracy", MID, Mean(Drop(), setting("mid"), "below", MARGIN)),
    Claim("R12", "Training with DP-SGD does not stop inversion", f"{MID}, on differential privacy",
          Mean(Excess(), setting("dp-sgd"), "above", MARGIN, some_pool=True)),
)  # fmt: skip
"""One family: the p-values of all of them are adjusted together."""
