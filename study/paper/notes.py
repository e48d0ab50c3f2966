"""Notes below the tables: contradictions in the paper, and where our experiments differ."""

from __future__ import annotations

TITLES = {
    "I": "LPA and LFP beside MID and no defense",
    "II": "losses of defender and attacker",
    "III": "data of defender and attacker",
    "IV": "architectures of defender and attacker",
    "V": "conditional diffusion as the attacker",
    "VI": "LPA's budget",
    "VII": "other perturbations",
    "VIII": "time",
    "IX": "amortised LPA (the paper's VAE)",
    "X": "the paper's adaptive attackers",
}

LPA_ON_MNIST = "The paper gives LPA on MNIST three attack accuracies: 74.72 (I, X), 74.27 (VII), 79.17 (IX)."
NO_VICTIM = (
    "The paper states no budgets, rounds, step sizes, ratios or thresholds: budgets are inferred from its "
    "distortions (1.5e-4 MNIST, 2.5e-4 Fashion-MNIST and CIFAR-10, 4e-3 faces); R = 10, step 0.2, LFP's "
    "ratio 0.05."
)
SAME_SET = "Victim, split and seeds are the same in every row of a data set, and in every table."

NOTES: dict[str, tuple[str, ...]] = {
    "I": (
        NO_VICTIM,
        LPA_ON_MNIST,
        SAME_SET,
        "Rows marked ours are controls that the paper lacks: noise of LPA's length, rounding, the label "
        "alone.",
    ),
    "II": (
        "The gradient of -PSNR over a set is a positive multiple of that of MSE, so both defenders seek the "
        "same direction: their rows can differ only by the substitute's training and by chance.",
        SAME_SET,
    ),
    "III": (
        "The paper's halves of 14,702 images are half of MNIST's classes 5-9, not of FaceScrub.",
        "D1 and D2 are stratified halves of the attack set.",
        SAME_SET,
    ),
    "IV": (
        "The paper's 0.2312 for LPA against tcnn-5 is 0.2318 in Table I.",
        "tcnn-5 and tcnn-6 on 64x64; one block fewer each on 32x32.",
        SAME_SET,
    ),
    "V": (
        "The paper's undefended errors are equal for all three guidances, and its defended ones are lower "
        "than those: by its own measure LPA would help the attacker.",
        SAME_SET,
    ),
    "VI": (
        "LPA without its label step, in all rows of this table: the paper's model accuracy falls to 56 % at "
        "budget 1.0, which label-preserving poisoning cannot.",
        SAME_SET,
    ),
    "VII": (
        "The paper's distortions of OnePara (0.991, 0.973) exceed what a label-keeping 5-class vector can "
        "reach from a one-hot input (0.894): its outputs were not normalised, or the metric differs. "
        "OnePara-style here: the original's details are not public.",
        LPA_ON_MNIST,
        "Budgets of PGD, Poi_MSE and AdvExa are set to the paper's distortions. The reference row is LPA.",
        SAME_SET,
    ),
    "VIII": (
        "Absolute times are this device's; hardware and batch size of the paper's are not stated. Compare "
        "the last column. Training is that of the attacker's inversion model here, of the classifier in "
        "the paper.",
    ),
    "IX": (
        "The paper's undefended and LPA attack accuracies (80.05, 79.17) are Table VII's for PGD and "
        "Poi_MSE.",
        LPA_ON_MNIST,
        SAME_SET,
    ),
    "X": (
        "The reference is LPA under the attacker who does not adapt. An attacker whose transform lowers its "
        "own accuracy is no test of the defense: see the same transforms without any defense, in the rows "
        "that are ours.",
        LPA_ON_MNIST,
        SAME_SET,
    ),
}
