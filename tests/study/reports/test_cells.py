"""What tables are made of."""

from __future__ import annotations

import pandas as pd
import pytest

from study.reports.cells import SEEN, alignments, describe, test_seen, with_alignment
from study.runtime.progress import progress_line
from study.session.quality import Least, Quality


def test_describe_and_progress_line():
    frame = pd.DataFrame([{"dataset": "mnist", "auxiliary": "disjoint", "scene.limit": 200.0, "seed": 3}])
    assert describe(frame, {"study": "x", "scale": None}) == (
        "study x; data mnist; auxiliary disjoint; at most 200 training images a side; 1 seed (3); "
        "device unknown"
    )
    mine = describe(frame.assign(dataset="folder:/mnt/anna/faces"))
    assert mine.startswith("data folder; ")  # who shows it around shows no path of the machine
    own = frame.assign(**{"scene.victim": "net:make", "scene.victim_steps": 400, "scene.decoder_steps": 60})
    assert "training steps: evaluators 400, decoder 60;" in describe(own)  # the victim was not trained
    assert "test images" not in describe(own)
    assert test_seen(own) is None
    assert "; test images: a held-out part of the private images, " in describe(own.assign(**{SEEN: True}))
    assert "test images" not in describe(own.assign(**{SEEN: False}))
    assert "training steps: victim 400, decoder 60;" in describe(own.assign(**{"scene.victim": None}))
    quality = Quality(0.4123, 0.52, Least(0.0123, 0.00345), Least(0.5321, 0.0125))
    assert progress_line(12, 1, 60, quality.text(shared_classes=True), 200) == (
        "12/60 done, 1 failed | least excess leakage 0.012 (distortion 0.0034), "
        "identification AUC 0.532 (distortion 0.013) | hypervolume 0.520 | 3 min left"
    )
    assert quality.text(shared_classes=False) == (
        "least excess leakage 0.012 (distortion 0.0034), attack accuracy 0.412 | hypervolume 0.520"
    )
    unknown = progress_line(0, 0, 60, Quality().text(shared_classes=True), None)
    assert unknown.endswith("leakage -, identification AUC - | hypervolume - | - left")
    assert Quality().text(shared_classes=False).endswith("accuracy - | hypervolume -")
    assert progress_line(1, 0, 2, "-", 12).endswith("| 12 s left")
    assert progress_line(1, 0, 2, "-", 9000).endswith("| 2.5 h left")


def test_a_mean_cosine_stands_beside_the_settings_that_have_one():
    frame = pd.DataFrame(
        {
            "trial": ["t1-lpa", "t1-lpa", "t2-noise", "t3-lpa"],
            "alignment_after": pd.array([0.1, 0.2, None, None], dtype="Float64"),
        }
    )
    cosines = alignments(frame)
    assert cosines == {"t1-lpa": pytest.approx(0.15)}
    assert alignments(frame.drop(columns="alignment_after")) == {}
    settings = [
        {"trial": trial, "defense": defense, "defense.budget": 0.01}
        for trial, defense in (("t1-lpa", "lpa"), ("t2-noise", "noise"), ("t3-lpa", "lpa"))
    ]
    found = [with_alignment(s, cosines) for s in settings]
    assert found == ["lpa budget=0.01\nmean cosine +0.150", "noise budget=0.01", "lpa budget=0.01"]
