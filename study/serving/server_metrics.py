"""What ``/metrics`` tells, in Prometheus' text format: counts and times, nothing of images or clients."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of the histogram of times, seconds."""
OTHER = "other"
"""The path of requests to no known path: a client must not make up labels."""


class ServerMetrics:
    """The counters of one server, in a registry of their own.

    Args:
        paths: the known paths.
    """

    def __init__(self, paths: frozenset[str]) -> None:
        self._paths, self._registry = paths, CollectorRegistry()
        self._requests = Counter(
            "mipoison_requests", "Answered requests", ["path", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "mipoison_request_seconds", "Time from a request's headers to its answer",
            ["path"], buckets=BUCKETS, registry=self._registry,
        )  # fmt: skip
        self._queries = Counter(
            "mipoison_queries", "Images of which a vector was released", registry=self._registry
        )
        self._refused = Counter(
            "mipoison_budget_refusals", "Requests beyond a client's query budget", registry=self._registry
        )
        self._under_way = Gauge("mipoison_requests_under_way", "Requests under way", registry=self._registry)

    def observe(self, path: str, status: int, seconds: float) -> None:
        """Count an answered request."""
        path = path if path in self._paths else OTHER
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)
        if status == 429:
            self._refused.inc()

    def released(self, n: int) -> None:
        """Count released vectors."""
        self._queries.inc(n)

    def text(self, under_way: int) -> bytes:
        """All of it, in Prometheus' text format."""
        self._under_way.set(under_way)
        return generate_latest(self._registry)
