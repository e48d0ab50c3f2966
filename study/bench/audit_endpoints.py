"""How good audits are: endpoints drawn at random are served, audited, and compared with the truth.

``python -m study.bench.audit_endpoints OUT.csv`` draws 20 endpoints, each a victim and a defense that the
auditor is not told, serves them on loopback, audits each with 2,000 questions, and runs a full study of the
same victim and defense. A row an endpoint: both intervals, whether they cover the study's excess, the family
that was named and the true one. Rows that OUT.csv has already are not run again.
"""

from __future__ import annotations

import json
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from mipoison.deployment import Deployment
from study.auditing.answers import Answers
from study.auditing.asking import Asker
from study.auditing.audit import audit
from study.auditing.endpoint import Endpoint
from study.auditing.findings import Findings
from study.auditing.images import AuditImages, without_copies
from study.auditing.template import Template
from study.bench.simulated_endpoint import POOLS, Drawn, deployed, drawn, family, full_study

ENDPOINTS, QUERIES, MASTER = 20, 2000, 1
COVERED, NAMED, MINUTES = 19, 16, 10.0
"""What is asked of the audits: endpoints whose intervals cover, families that are named, minutes each."""
JSON_BODY = '{"images": ["@image"]}'


def images_of(deployment: Deployment) -> AuditImages:
    """What the auditor of a simulated endpoint holds: the attacker's and all private images, as 8 bits."""
    split = deployment.scene.split
    parts = {"public": "attack_train", **POOLS}
    return without_copies(
        {
            name: (getattr(split, part).x_NCHW * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
            for name, part in parts.items()
        }
    )


@contextmanager
def served(deployment: Deployment) -> Iterator[str]:
    """Serve a deployment on loopback; yields the URL that images are posted to."""
    ask = deployment.service.session()

    class Handler(BaseHTTPRequestHandler):
        protocol_version, wbufsize, disable_nagle_algorithm = "HTTP/1.1", -1, True

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            x_NCHW = torch.tensor(json.loads(body)["images"], dtype=torch.float32)
            out = json.dumps({"released": ask(x_NCHW).tolist()}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(out)))
            self.end_headers()
            self.wfile.write(out)

        def log_message(self, *of: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)  # ends soon when told
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/classify"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def audited(deployment: Deployment, *, queries: int = QUERIES, out: Path | None = None) -> Findings:
    """Audit a deployment over HTTP.

    Args:
        queries: budget. out: where answers are kept; None: a temporary folder.
    """
    images = images_of(deployment)
    with tempfile.TemporaryDirectory() as scratch, served(deployment) as url:
        template = Template(url=url, body=JSON_BODY)
        endpoint = Endpoint(template)
        with Answers(out or Path(scratch), template.identity()) as answers:
            asker = Asker(endpoint.ask, answers, path="released.0", budget=queries)
            try:
                return audit(asker, images, url=url, budget=queries, advise=False)
            finally:
                endpoint.close()


def row_of(endpoint: Drawn, deployment: Deployment, truth: dict[str, Any], found: Findings) -> dict[str, Any]:
    """A row of results."""
    named = family(endpoint, deployment.scene.split.n_classes)
    row = {**endpoint.flat(), "queries": found.queries, **truth}
    covers = True
    for pool, excess in found.excess.items():
        row |= {f"audit_{pool}": excess.estimate, f"low_{pool}": excess.low, f"high_{pool}": excess.high}
        row[f"covers_{pool}"] = excess.low <= truth[f"full_{pool}"] <= excess.high
        covers &= row[f"covers_{pool}"]
    row |= {"covers": covers, "family": named, "named": found.family.name, "evidence": found.family.evidence}
    return row | {"hit": named == found.family.name}


def run(
    out: Path, *, endpoints: int = ENDPOINTS, store: str, data_root: str | None, truths: Path | None = None
) -> pd.DataFrame:
    """Audit the endpoints that ``out`` has no row of yet, and append a row each.

    Args:
        store: folder for trained parts. truths: folder for what full studies found, so that a broken run does
            not repeat them.
    """
    rows = pd.read_csv(out, keep_default_na=False).to_dict("records") if out.exists() else []
    done = {int(row["number"]) for row in rows}
    for number in sorted(set(range(endpoints)) - done):
        endpoint = drawn(number, MASTER)
        deployment = deployed(endpoint, store, data_root)
        start = time.monotonic()
        found = audited(deployment)
        seconds = time.monotonic() - start
        truth = _truth(deployment, truths / f"{MASTER}-{number}.json" if truths else None)
        rows.append(row_of(endpoint, deployment, truth, found) | {"audit_seconds": round(seconds, 1)})
        out.parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(rows).round(5).to_csv(out, index=False)
        print(json.dumps({k: rows[-1][k] for k in ("number", "defense", "covers", "hit")}), flush=True)
    return pd.read_csv(out, keep_default_na=False)


def _truth(deployment: Deployment, kept: Path | None) -> dict[str, Any]:
    if kept is not None and kept.exists():
        row = json.loads(kept.read_text())
        return {name: value for name, value in row.items() if name.startswith("full_")}
    truth = full_study(deployment)
    if kept is not None:
        kept.write_text(json.dumps(truth))
    return truth


def summary(table: pd.DataFrame) -> str:
    """How many of the endpoints hold what is asked."""
    covers, hits = int(table["covers"].sum()), int(table["hit"].sum())
    slowest = float(table["audit_seconds"].max()) / 60
    return (
        f"{covers} of {len(table)} endpoints: both intervals cover the full study's excess (asked: {COVERED} "
        f"of {ENDPOINTS}); family named in {hits} (asked: {NAMED}); slowest audit {slowest:.1f} min "
        f"(asked: {MINUTES:.0f})"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the table; exit code 1 where a bar is missed, 2 for bad usage."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not 1 <= len(words) <= 2 or not words[0].endswith(".csv"):
        print("usage: python -m study.bench.audit_endpoints OUT.csv [DATA-ROOT]", file=sys.stderr)
        return 2
    store = Path(tempfile.gettempdir()) / "mipoison-audit-endpoints"
    store.mkdir(exist_ok=True)
    table = run(Path(words[0]), store=str(store), data_root=words[1] if words[1:] else None, truths=store)
    print(summary(table))
    covers, hits = int(table["covers"].sum()), int(table["hit"].sum())
    return int(len(table) < ENDPOINTS or covers < COVERED or hits < NAMED)


if __name__ == "__main__":
    sys.exit(main())
