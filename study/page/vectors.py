"""Clean against released vectors, in two dimensions.

Records hold no vectors. They are released again by the study's trained parts (see ``mipoison.artifacts``),
for the first seed and the settings that the pictures show. A diagnostic of the defense, not an attack: no
attacker sees a private image's clean vector.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from mipoison.artifacts import source_fingerprint
from mipoison.config import ConfigError
from mipoison.datasets import DataError
from mipoison.defenses import DEFENSES
from mipoison.episode import deploy
from mipoison.scene import scene_for
from study.again import scenes_in
from study.fresh import knobs_of
from study.frontier import UNDEFENDED
from study.page.data import NAMES
from study.render import Finished
from study.reporting import chosen_settings
from study.reporting.tables import setting_name

SHOWN = 200
"""Private images whose vectors are shown."""
LEAST = 8
"""Vectors below which t-SNE makes no sense."""
KEPT = "vectors.parquet"
"""What the paper's tables keep: columns ``defense`` (``none``: clean) and ``c0``, ``c1``, ..."""
Progress = Callable[[str, int, int], None]
"""Told what is being done, which step it is and of how many."""
Vectors = dict[str, NDArray[np.float64]]


def kept_vectors(study: Finished) -> Vectors | None:
    """Vectors that are kept beside the records: name -> (n, K), clean ones first; None if there are none."""
    data = study.read(KEPT)
    if data is None:
        return None
    frame = pq.read_table(io.BytesIO(data)).to_pandas()
    scores = [c for c in frame if str(c).startswith("c")]
    names = sorted(dict.fromkeys(frame["defense"]), key=lambda name: name != UNDEFENDED)
    return {str(name): frame.loc[frame["defense"] == name, scores].to_numpy(dtype=float) for name in names}


def can_release(study: Finished) -> bool:
    """Whether the trained parts of this study, by this version of the code, are there."""
    return study.about.get("source") == source_fingerprint() and bool(study.storage.names("artifacts"))


def release_vectors(
    study: Finished, settings: pd.DataFrame, root: str, data_root: str | None, progress: Progress
) -> Vectors:
    """Deploy the settings once more and ask for the private images' vectors; clean ones first.

    Args:
        root: storage root of the trained parts; what it lacks is trained and put there.

    Raises:
        ConfigError, DataError: data or settings that cannot be used.
    """
    scene_config = scenes_in(study.episodes)[0]
    chosen = chosen_settings(settings.dropna(subset=["worst_reconstruction_error"]))
    chosen = chosen[chosen["defense"] != UNDEFENDED]
    total = len(chosen) + 1
    progress("victim", 0, total)
    scene = scene_for(scene_config, root, data_root)
    out = {"clean": scene.clean["private_train"][:SHOWN].double().numpy()}
    for i, (_, row) in enumerate(chosen.iterrows()):
        name = NAMES.get(str(row["defense"]), setting_name(row))
        progress(name, i + 1, total)
        defense = str(row["defense"])
        deployment = deploy(scene, defense, DEFENSES[defense].from_flat(knobs_of(row)))
        # The whole request, as the study asked it: some defenses pick among its vectors.
        released = deployment.service.release(scene.split.private_train.x_NCHW)
        out[name] = released[:SHOWN].double().numpy()
    progress("done", total, total)
    return out


def project(vectors: Vectors, progress: Progress) -> list[dict[str, Any]]:
    """Per setting, clean and released vectors together: PCA and t-SNE (perplexity 30, fewer for few).

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
            # One thread: for a few hundred points others only wait, and on a busy machine for long.
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
    study: Finished,
    settings: pd.DataFrame,
    wanted: bool | None,
    data_root: str | None,
    progress: Progress,
) -> tuple[list[dict[str, Any]], str]:
    """The projections, and a sentence on where they come from or why there are none.

    Args:
        wanted: True trains what is missing; False leaves the vectors out; None shows them if that is cheap.
    """
    vectors = kept_vectors(study)
    how = "Kept beside the records."
    if vectors is None:
        if wanted is False or (wanted is None and not can_release(study)):
            missing = "no trained parts of this version are there"
            why = "this page was made without them" if wanted is False else missing
            return (
                [],
                f"Records hold no vectors, and {why}. This command releases them (and trains what it needs):",
            )
        try:
            with contextlib.ExitStack() as stack:
                root = study.storage.root
                if not can_release(study):  # what is trained for a page is not put beside published records
                    root = stack.enter_context(tempfile.TemporaryDirectory(prefix="mipoison-"))
                vectors = release_vectors(study, settings, root, data_root, progress)
        except (ConfigError, DataError) as error:
            if wanted:
                raise
            return [], f"The vectors could not be released again: {error}"
        how = "Released again for this page by the victim of the first seed."
    return project(vectors, progress), how
