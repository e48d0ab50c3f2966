"""The metrics parse as Prometheus' text format; labels are of known paths alone."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from study.serving.server_metrics import ServerMetrics


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_counts_and_times() -> None:
    metrics = ServerMetrics(frozenset({"/release", "/health"}))
    for status, seconds in ((200, 0.02), (200, 0.3), (429, 0.001)):
        metrics.observe("/release", status, seconds)
    metrics.observe("/\xff<script>", 404, 0.1)
    metrics.released(7)
    found = samples(metrics.text(3).decode())
    path = ("path", "/release")
    assert found["mipoison_requests_total", (path, ("status", "200"))] == 2
    assert found["mipoison_requests_total", (path, ("status", "429"))] == 1
    assert found["mipoison_requests_total", (("path", "other"), ("status", "404"))] == 1
    assert found["mipoison_request_seconds_bucket", (("le", "0.025"), path)] == 2
    assert found["mipoison_request_seconds_count", (path,)] == 3
    assert abs(found["mipoison_request_seconds_sum", (path,)] - 0.321) < 1e-9
    assert found["mipoison_queries_total", ()] == 7
    assert found["mipoison_budget_refusals_total", ()] == 1
    assert found["mipoison_requests_under_way", ()] == 3
    assert "script" not in metrics.text(0).decode()


def test_two_servers_do_not_share() -> None:
    one, other = ServerMetrics(frozenset()), ServerMetrics(frozenset())
    one.released(5)
    assert samples(other.text(0).decode())["mipoison_queries_total", ()] == 0
