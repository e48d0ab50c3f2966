"""A compact copy of the paper's records."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from study import reproduce
from study.paper.compact import write_compact
from study.paper.diagnostics import COSINE, VECTORS
from study.paper.experiments import FACES
from study.paper.figures import PICTURES
from study.paper.measured import load
from study.paper.tables import table_markdown
from tests.study.paper.helpers import TINY


def test_a_compact_copy_renders_the_same_tables(reproduced: Path, tmp_path: Path) -> None:
    found = load(str(reproduced), "digits")
    asked = f"{TINY} --render --table I --figure 5 7 --storage {reproduced} --compact {tmp_path}"
    assert reproduce.main(asked.split()) == 0
    again = load(str(tmp_path), "digits")
    kept = {p.name for p in (tmp_path / "reproduction" / "digits").iterdir()}
    assert kept == {"episodes.parquet", "study.json", VECTORS, COSINE}  # faces: no pictures
    write_compact({"mnist": found[FACES]}, tmp_path / "others")
    pictures = pd.read_parquet(tmp_path / "others" / "reproduction" / "digits" / PICTURES)
    assert {"truth", "passive"} <= set(pictures["attack"])
    assert len(pictures["pixels"][0]) == np.prod(pictures["shape"][0])
    for table in ("I", "III"):
        assert table_markdown(table, again) == table_markdown(table, found)
