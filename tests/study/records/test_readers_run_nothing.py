"""Readers of results run no code in them: every kind of planted code, tried with every reader."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from matplotlib.figure import Figure

import mipoison.scene
from mipoison.storage.artifacts import source_fingerprint
from study import evaluate, render, report, reproduce


class Payload:
    """Makes a folder when unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.marker),)


def module(folder: Path, marker: Path) -> dict[str, str]:
    (folder / "planted.py").write_text(f"import os\nos.mkdir({str(marker)!r})\n")
    return {"scene.victim": "planted:make"}


def exported(folder: Path, marker: Path) -> dict[str, str]:
    """An archive in the form of torch.save, which torch.export.load unpickles."""
    torch.save(Payload(marker), folder / "planted.pt2")
    return {"scene.victim": str(folder / "planted.pt2")}


def renamed_pickle(folder: Path, marker: Path) -> dict[str, str]:
    (folder / "planted.pt2").write_bytes(pickle.dumps(Payload(marker)))
    return {"scene.victim": str(folder / "planted.pt2")}


def linked(folder: Path, marker: Path) -> dict[str, str]:
    torch.save(Payload(marker), folder / "real.pt")
    (folder / "planted.pt2").symlink_to(folder / "real.pt")
    return {"scene.victim": "planted.pt2"}


def state(folder: Path, marker: Path) -> dict[str, str]:
    torch.save(Payload(marker), folder / "state.pt")
    return {"scene.victim": "torch.nn:Identity", "scene.victim_state": str(folder / "state.pt")}


def state_dict(folder: Path, marker: Path) -> dict[str, str]:
    torch.save({"state_dict": {"weight": Payload(marker)}}, folder / "state.pth")
    return module(folder, marker) | {"scene.victim_state": "state.pth"}


def archive(folder: Path, marker: Path) -> dict[str, str]:
    with zipfile.ZipFile(folder / "faces.npz", "w") as members:
        members.writestr("images.npy", pickle.dumps(Payload(marker)))
    name = f"faces:{folder / 'faces.npz'}"
    return {"dataset": name, "scene.dataset": name}


def odd_path(folder: Path, marker: Path) -> dict[str, str]:
    return {"dataset": "folder:~nobody-at-all/x", "scene.dataset": "folder:~nobody-at-all/x"}


FORMS = [module, exported, state, archive]
MORE_FORMS = [renamed_pickle, linked, state_dict, odd_path]
READERS: dict[str, Callable[[Path], int]] = {
    "report": lambda s: report.main([str(s)]),
    "report with vectors": lambda s: report.main([str(s), "--vectors", "yes"]),
    "render": lambda s: render.main([str(s), "--compact", str(s.parent / "compact")]),
    "evaluate a trial": lambda s: evaluate.main(["--like", str(s), "--trial", "none"]),
    "evaluate a setting": lambda s: evaluate.main(["--like", str(s), "--defense", "rounding"]),
    "reproduce": lambda s: reproduce.main(["--render", "--table", "I", "--storage", str(s.parents[1])]),
}


@pytest.mark.parametrize(
    "form",
    [*FORMS, *(pytest.param(form, marks=pytest.mark.long) for form in MORE_FORMS)],
    ids=lambda form: form.__name__,
)
def test_readers_run_nothing_that_records_name(
    form: Callable[[Path, Path], dict[str, str]],
    small_study: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    marker, here = tmp_path / "executed", tmp_path / "reproduction" / "digits"
    named = form(tmp_path, marker) | {"scene.victim_digest": "0" * 16}
    if "scene.victim" not in named:
        del named["scene.victim_digest"]
    shutil.copytree(small_study, here, ignore=shutil.ignore_patterns("pictures"))
    shutil.copytree(here, here.with_name("mnist"))
    for folder in (here, here.with_name("mnist")):
        (folder.parent / "artifacts").mkdir(exist_ok=True)
        (folder.parent / "artifacts" / "x").touch()
        for path in (folder / "episodes").iterdir():
            table = pq.read_table(path)
            rows = [row | named for row in table.to_pylist()]
            pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)
        about = json.loads((folder / "study.json").read_text()) | {"source": source_fingerprint()}
        (folder / "study.json").write_text(json.dumps(about))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    # What is drawn is not looked at here, and drawing takes most of the time.
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **_: Path(path).touch())
    mipoison.scene._remembered.cache_clear()
    for name, reader in READERS.items():
        capsys.readouterr()
        code = reader(here)
        said = capsys.readouterr()
        assert not marker.exists(), name
        assert code in (0, 2), name
        assert "Traceback" not in said.err + said.out
        if "scene.victim" in named and name not in ("render", "reproduce"):
            assert "--victim" in said.err, (name, said.err)


def test_the_planted_forms_would_run(tmp_path: Path) -> None:
    """The control: the planted code does run when it is loaded."""
    for form, load in (
        (exported, lambda path: torch.load(path, weights_only=False)),
        (renamed_pickle, lambda path: pickle.loads(path.read_bytes())),
    ):
        marker = tmp_path / form.__name__
        form(tmp_path, marker)
        load(tmp_path / "planted.pt2")
        assert marker.is_dir()
