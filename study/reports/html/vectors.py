"""Projects clean and released confidence vectors to two dimensions.

Records hold no vectors. The study's trained artifacts (see ``mipoison.storage.artifacts``) release them
again, for the first seed and the settings whose images are shown. This diagnoses a defense and is no attack:
no attacker sees a private image's clean vector.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits
from torch import Tensor

from mipoison.config import ConfigError
from mipoison.data.datasets import DataError
from mipoison.defenses import DEFENSES, UNDEFENDED
from mipoison.deployment import deploy
from mipoison.scene import prepare
from mipoison.storage.artifacts import ArtifactStore, source_fingerprint
from mipoison.storage.files import Storage
from study.records.finished import StoredStudy
from study.records.flat import knobs_of
from study.records.reading import Unreadable, leave_out
from study.records.reading.tables import vectors_of
from study.reports.html.chart_data import shown_name
from study.reports.reconstructions import chosen_settings
from study.runtime.plain import visible_line
from study.trial.rerun import NO_VICTIM, GivenVictim, VictimMissingError, scenes_in

SHOWN = 200
"""Private images whose vectors are shown."""
LEAST = 8
"""Fewest vectors that t-SNE is fitted on."""
ABOUT = (
    f"Up to {SHOWN} private images of the first seed; each panel's projection is fitted on its clean and "
    "released vectors together. Distances in t-SNE say little; overlap is not evidence of protection."
)
PICTURE = "the picture of clean and released vectors"
"""What a page without vectors lacks, for a warning."""
KEPT = "vectors.parquet"
"""File that a run of the paper's tables writes: columns ``defense`` (``none``: clean), ``c0``, ``c1``, ..."""
Progress = Callable[[str, int, int], None]
"""Called with the name of a step, its number, and the number of steps."""
Vectors = dict[str, NDArray[np.float64]]


def kept_vectors(study: StoredStudy) -> Vectors | None:
    """Vectors stored beside the records: name -> (n, K), clean ones first; None without a valid file."""
    try:
        data = study.read(KEPT)
        return None if data is None else {k: v[:SHOWN] for k, v in vectors_of(data).items()}
    except Unreadable as error:
        leave_out(f"{study.folder}/{KEPT}", error)
        return None


def can_release(study: StoredStudy) -> bool:
    """Whether the storage holds artifacts, and this version of the code made them."""
    return study.about.get("source") == source_fingerprint() and bool(study.storage.names("artifacts"))


class _ReadOnlyStore(ArtifactStore):
    """An artifact store that refuses to train: making a page must not train what records ask for."""

    def tensors(
        self,
        kind: str,
        spec: dict[str, Any],
        make: Callable[[], dict[str, Tensor]],
        like: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        def refuse() -> dict[str, Tensor]:
            raise ConfigError(f"the artifact {kind} of this device and version is missing")

        return super().tensors(kind, spec, refuse, like)


def release_vectors(
    study: StoredStudy,
    configurations: pd.DataFrame,
    *,
    root: str,
    data_root: str | None,
    progress: Progress,
    given: GivenVictim = NO_VICTIM,
    train: bool = True,
) -> Vectors:
    """Deploy the settings again and release the private images' vectors; clean ones come first.

    Args:
        root: storage root of the artifacts. train: whether missing ones are trained and stored there.
        given: the reader's classifier, see ``study.trial.rerun.scenes_in``.

    Raises:
        ConfigError, DataError: data, settings or artifacts cannot be used.
    """
    scene_config = scenes_in(study.episodes, given)[0]
    chosen = chosen_settings(configurations.dropna(subset=["worst_reconstruction_error"]))
    here = [name for name, config in DEFENSES.items() if config.MAKES]  # not those of missing plug-ins
    chosen = chosen[(chosen["defense"] != UNDEFENDED) & chosen["defense"].isin(here)]
    total = len(chosen) + 1
    progress("victim", 0, total)
    store = (ArtifactStore if train else _ReadOnlyStore)(Storage(root))
    scene = prepare(scene_config, store, data_root=data_root)
    out = {"clean": scene.clean["private_train"][:SHOWN].double().numpy()}
    for i, (_, row) in enumerate(chosen.iterrows()):
        name = shown_name(row)
        progress(name, i + 1, total)
        defense = str(row["defense"])
        deployment = deploy(scene, defense, DEFENSES[defense].from_flat(knobs_of(row)))
        # All images in one request, as in the study: some defenses pick among a request's vectors.
        released = deployment.service.release(scene.split.private_train.x_NCHW)
        out[name] = released[:SHOWN].double().numpy()
    progress("done", total, total)
    return out


def project(vectors: Vectors, progress: Progress) -> list[dict[str, Any]]:
    """Project each setting's clean and released vectors together by PCA and t-SNE (perplexity at most 30).

    Returns:
        One entry a setting: ``name``, ``moved`` (mean l2 distance of the vectors shown), ``views``: of each
        method its name, and points (x, y) of the clean and of the released vectors.
    """
    names = list(vectors)
    clean = vectors[names[0]]
    out = []
    for i, name in enumerate(names[1:]):
        progress(f"t-SNE of {name}", i, len(names) - 1)
        released = vectors[name]
        both = np.concatenate([clean, released])
        views = [_view("PCA", PCA(2, random_state=0).fit_transform(both), len(clean))]
        if len(clean) >= LEAST:
            near = min(30, len(both) // 4)
            # One thread: for a few hundred points more threads only wait for each other.
            with np.errstate(all="ignore"), threadpool_limits(1):
                places = TSNE(2, random_state=0, perplexity=near, init="random").fit_transform(both)
            views.append(_view("t-SNE", places, len(clean)))
        moved = (
            float(np.linalg.norm(released - clean, axis=1).mean()) if len(released) == len(clean) else None
        )
        out.append({"name": name, "moved": moved, "views": views})
    return out


def _view(method: str, places: NDArray[Any], n_clean: int) -> dict[str, Any]:
    spread = float(np.abs(places).max()) or 1.0
    rounded = np.round(np.asarray(places, dtype=float) / spread, 3)
    clean, released = rounded[:n_clean], rounded[n_clean:]
    return {"method": method, "clean": clean.tolist(), "released": released.tolist()}


def panels(
    study: StoredStudy,
    configurations: pd.DataFrame,
    *,
    wanted: bool | None,
    data_root: str | None,
    given: GivenVictim,
    progress: Progress,
) -> tuple[list[dict[str, Any]], str]:
    """The projections, and a sentence on where the vectors come from or why there are none.

    Args:
        wanted: True trains missing artifacts; False leaves the vectors out; None shows them if nothing has to
            be trained.
        given: the reader's classifier. Without it, vectors of a user's own classifier are left out.
    """
    vectors = kept_vectors(study)
    how = "Kept beside the records."
    if vectors is None:
        if wanted is False or (wanted is None and not can_release(study)):
            missing = "artifacts of this version are missing"
            why = "this page was made without them" if wanted is False else missing
            return (
                [],
                f"Records hold no vectors, and {why}. This command releases them (and trains what it needs):",
            )
        try:
            with contextlib.ExitStack() as stack:
                root = study.storage.root
                if not can_release(
                    study
                ):  # artifacts trained for a page are not written beside published records
                    root = stack.enter_context(tempfile.TemporaryDirectory(prefix="mipoison-"))
                vectors = release_vectors(
                    study,
                    configurations,
                    root=root,
                    data_root=data_root,
                    progress=progress,
                    given=given,
                    train=bool(wanted),
                )
        except VictimMissingError as error:
            leave_out(PICTURE, error)
            return [], f"Records hold no vectors, and {error}:"
        except (
            ConfigError,
            DataError,
            RuntimeError,
            MemoryError,
        ) as error:  # torch raises these for absurd sizes
            if wanted and not isinstance(error, ConfigError | DataError):
                raise ConfigError(
                    f"the records' settings cannot be trained: {visible_line(error, 160)}"
                ) from error
            if wanted:
                raise
            leave_out(PICTURE, error)
            return [], f"The vectors could not be released again: {error}"
        how = "Released again for this page by the victim of the first seed."
    return project(vectors, progress), how
