"""Images and the answers of the endpoints of ``audited_servers``, without a server."""

from __future__ import annotations

from typing import Any

import torch
from audited_servers import pictures, scores

from study.auditing.attacking import Pool, as_images, as_scores
from study.auditing.probes import Probes


def pool(n: int, seed: int) -> Pool:
    images = pictures(n, seed)
    c_NK = torch.tensor([scores(x[..., 0]) for x in images], dtype=torch.float64)
    return Pool(as_images(images), as_scores(c_NK))


def plain_probes(**changes: Any) -> Probes:
    """Probes of an undefended endpoint, but for the changes."""
    fields: dict[str, Any] = dict(
        answers=800, classes=10, repeat_distance=0.0, repeated=24, sum_error=1e-7, negative=False, decimals=9,
        steps=None, distinct=800, most_of_label=90, zeros=0.0, tied=0, jump=1e-5, largest_jump=1e-3,
        roughness=0.01, moved=1.0, steady=1.0, broken=1e-4, relabelled=0,
    )  # fmt: skip
    return Probes(**(fields | changes))
