"""Pictures on the page: the study's own, with a warning where people are shown."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image

from mipoison.storage.files import Storage
from study.analysis.frontier import configuration_table
from study.records.constraints import Constraints
from study.records.finished import StoredStudy, load
from study.reports.html import build
from study.reports.html.reconstructions import FACES, grid
from tests.study.reports.html.helpers import Reader


def test_pictures_are_those_of_the_study(small_study: Path) -> None:
    study = load(small_study)
    read = Reader(build(study, "x", with_vectors=False))
    sources = [a["src"] for t, a in read.elements if t == "img"]
    assert len(sources) == 1 + 5  # truth, two anchors, three families
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(sources[0].partition(",")[2]))))
    with np.load(small_study / "pictures" / "none.npz", allow_pickle=False) as archive:
        truth = archive["truth"]
    assert (pixels[:, : truth.shape[3], 0] == truth[0, 0]).all()
    assert FACES not in read.text


def test_pictures_of_people_come_with_a_warning_and_broken_ones_are_left_out(
    small_study: Path, tmp_path: Path
) -> None:
    study = load(small_study)
    settings = configuration_table(study.episodes, constraints=Constraints())
    people = StoredStudy(**{**vars(study), "episodes": study.episodes.assign(dataset="lfw")})
    found = grid(people, settings)
    assert found is not None
    assert found["people"] == FACES
    (tmp_path / "s" / "pictures").mkdir(parents=True)
    for trial in settings["trial"]:
        (tmp_path / "s" / "pictures" / f"{trial}.npz").write_bytes(b"no archive")
    broken = StoredStudy(**{**vars(study), "storage": Storage(tmp_path), "folder": "s"})
    assert grid(broken, settings) is None
