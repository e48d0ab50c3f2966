"""Which family of defenses the answers look like, from the answers alone, with the evidence for it.

The name is a guess by rules, no proof. Two things cannot be told apart from outside: no defense and a smooth
map of all vectors (a temperature); and a defense that changes next to nothing, or only images that were not
asked, and none.
"""

from __future__ import annotations

from dataclasses import dataclass

from study.auditing.probes import FAR, ROUGH, SAME, Probes

FAMILIES = {
    "smooth": "none to be seen, or a smooth map of the scores such as a temperature",
    "label-only": "one-hot vectors: the label alone",
    "grid": "rounding to a grid",
    "codebook": "few different answers to many images",
    "top-k": "only the largest scores are released",
    "noise": "noise on the scores",
    "poisoning": "scores moved on purpose, image by image (poisoning such as LPA)",
    "label-flipping": "some answers are replaced by others (label flipping)",
}
FEW = 0.34
"""A codebook has at most this share of different answers."""
STEADY = 0.9
"""Label flipping leaves at least this share of the surer images alone; what is moved on purpose does not."""
BROKEN = 0.01
"""A single rough move of this l2 length among smooth ones is a replaced answer."""
PROJECTED = 0.05
"""Share of exact zeros that a softmax does not have."""
CUT_OFF = 0.2
"""Share of exact zeros that noise leaves where it is cut off at 0; what is moved on purpose has fewer."""

ALIKE = 2.2
"""Noise of one length moves all answers about as far: the longest move is at most this many medians."""


@dataclass(frozen=True)
class Family:
    """A guess.

    Attributes:
        name: of FAMILIES. evidence: what speaks for it, in one line.
    """

    name: str
    evidence: str

    def __str__(self) -> str:
        return f"{self.name}: {FAMILIES[self.name]}"


def family_of(seen: Probes) -> Family:
    """The family; the first rule that holds decides."""
    if seen.repeated and seen.repeat_distance > SAME:
        return Family("noise", f"answers to one image differ by up to {seen.repeat_distance:.2g}")
    if seen.steps == 1:
        return Family("label-only", "all scores are 0 or 1")
    if seen.steps is not None:
        return Family("grid", f"all scores are multiples of 1/{seen.steps}; {seen.distinct} answers differ")
    if seen.distinct <= FEW * seen.answers:
        each = "one answer a label: " if seen.one_a_label else ""
        return Family("codebook", f"{each}{seen.distinct} different answers in {seen.answers}, on no grid")
    moves = f"one grey level of one pixel moves an answer by {seen.jump:.2g} (most: {seen.largest_jump:.2g})"
    rough = seen.roughness is not None and seen.roughness > ROUGH
    if rough and seen.moved >= 0.5:
        bent = f"{moves}, and by no multiple of it for two ({seen.roughness:.2g})"
        if seen.zeros > CUT_OFF:
            return Family("noise", f"{bent}; {seen.zeros:.0%} of the scores are cut off at 0")
        if seen.largest_jump < ALIKE * seen.jump:
            return Family("noise", f"{bent}; all moves are about as long")
        if seen.steady >= STEADY:
            return Family("label-flipping", f"{bent}; {seen.steady:.0%} of the surer images are left alone")
        if seen.relabelled:
            return Family("label-flipping", f"{bent}; {seen.relabelled} near copies have another label")
        return Family("poisoning", f"{bent}; {seen.zeros:.1%} of the scores are 0")
    if seen.largest_jump > FAR:
        return Family("label-flipping", moves)
    if seen.tied:
        k = seen.classes - seen.tied
        return Family("top-k", f"{seen.tied} scores share the rest in nearly all answers: k = {k}")
    if seen.zeros > PROJECTED:
        return Family("poisoning", f"{seen.zeros:.0%} of the scores are exactly 0; {moves}")
    if seen.broken > BROKEN:
        return Family("label-flipping", f"{moves}; {seen.broken:.2g} is no smooth move, while most are")
    return Family("smooth", f"{moves}, and twice as far for two")
