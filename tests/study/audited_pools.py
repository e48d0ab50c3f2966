"""Images and the answers of the endpoints of ``audited_servers``, without a server."""

from __future__ import annotations

import torch
from audited_servers import pictures, scores

from study.auditing.attacking import Pool, as_images, as_scores


def pool(n: int, seed: int) -> Pool:
    images = pictures(n, seed)
    c_NK = torch.tensor([scores(x[..., 0]) for x in images], dtype=torch.float64)
    return Pool(as_images(images), as_scores(c_NK))
