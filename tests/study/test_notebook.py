"""The notebook that reads a finished study runs from top to bottom, and says what the records say."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "study" / "examples" / "read_a_study.ipynb"


@pytest.mark.timeout(200)
def test_the_notebook_runs() -> None:
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells), "committed without its outputs"
    nbclient.NotebookClient(
        notebook, timeout=150, kernel_name="python3", resources={"metadata": {"path": str(NOTEBOOK.parent)}}
    ).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [o for o in outputs if o["output_type"] == "error"]
    text = "".join(o.get("text", "") for o in outputs)
    episodes = pd.read_parquet(ROOT / "study" / "results" / "digits-search" / "episodes.parquet")
    assert f"{len(episodes)} episodes" in text
    assert any("image/png" in o.get("data", {}) for o in outputs)
