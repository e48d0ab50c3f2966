"""What tables are made of."""

from __future__ import annotations

import pandas as pd

from study.reports.cells import describe
from study.runtime.progress import progress_line


def test_describe_and_progress_line():
    frame = pd.DataFrame([{"dataset": "mnist", "auxiliary": "disjoint", "scene.limit": 200.0, "seed": 3}])
    assert describe(frame, {"study": "x", "scale": None}) == (
        "study x; data mnist; auxiliary disjoint; at most 200 training images a side; 1 seed (3); "
        "device unknown"
    )
    line = progress_line(12, 1, 60, 0.4123, 0.52, 200)
    assert line == (
        "12/60 done, 1 failed | lowest worst-case attack accuracy 0.412 | hypervolume 0.520 | 3 min left"
    )
    assert progress_line(0, 0, 60, None, None, None).endswith("accuracy - | hypervolume - | - left")
    assert progress_line(1, 0, 2, 0.5, 0.5, 12).endswith("| 12 s left")
    assert progress_line(1, 0, 2, 0.5, 0.5, 9000).endswith("| 2.5 h left")
