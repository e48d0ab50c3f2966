"""The report page loads nothing, evaluates nothing, and no record's text is markup."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re

from study.reports.html import ASSETS, LIBRARY
from tests.study.reports.html.helpers import HOSTILE, Reader, settings_of


def test_nothing_is_fetched_and_only_our_script_may_run(page: str) -> None:
    read = Reader(page)
    for tag, attributes in read.elements:
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            assert attributes.get(name, "").partition(":")[0] in ("", "data") or attributes[name][0] == "#", (
                tag
            )
        assert not [name for name in attributes if name.startswith("on")], tag
    css = "".join(re.findall(r"<style>(.*?)</style>", page, flags=re.DOTALL))
    assert "url(" not in css
    assert "@import" not in css
    (policy,) = [a["content"] for t, a in read.elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe-eval" not in policy
    (script,) = re.findall(r"</script>\n<script>(.*?)</script></body>", page, flags=re.DOTALL)
    (packed,) = re.findall(r'id="library">(.*?)</script>', page, flags=re.DOTALL)
    library = gzip.decompress(base64.b64decode(packed)).decode()
    allowed = re.findall(r"'sha256-([^']+)'", policy.partition("script-src")[2])
    hashes = [base64.b64encode(hashlib.sha256(t.encode()).digest()).decode() for t in (script, library)]
    assert allowed == hashes


def test_the_vendored_scripts_are_the_published_ones() -> None:
    """Their digests, versions and licences are recorded, and nothing else lies beside them."""
    vendor = ASSETS / "vendor"
    recorded = json.loads((vendor / "versions.json").read_text())
    for entry in recorded:
        data = (vendor / entry["file"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == entry["sha256"]
        assert f'"{entry["version"]}"'.encode() in data
        assert entry["license"] == "BSD-3-Clause"
        assert "Redistribution and use" in (vendor / entry["license_file"]).read_text()
    files = {name for entry in recorded for name in (entry["file"], entry["license_file"])}
    assert {path.name for path in vendor.iterdir()} == {*files, "versions.json"}
    assert [entry["file"] for entry in recorded] == list(LIBRARY)


def test_what_records_say_is_text(page: str) -> None:
    read = Reader(page)
    assert [tag for tag, _ in read.elements].count("script") == 3
    assert not [a for t, a in read.elements if t == "img" and a.get("src") == "x"]
    assert HOSTILE in read.text  # the error in the table of failures, the name in the heading
    assert HOSTILE not in page


def test_the_page_is_accessible(page: str) -> None:
    read = Reader(page)
    tags = [tag for tag, _ in read.elements]
    assert tags.count("table") == tags.count("caption")
    assert next(a for t, a in read.elements if t == "html")["lang"] == "en"
    assert all(a.get("alt") for t, a in read.elements if t == "img")
    assert all(
        a.get("tabindex") == "0" and a.get("aria-label")
        for _, a in read.elements
        if a.get("class") == "scroll"
    )
    assert all("scope" in a for t, a in read.elements if t == "th")
    ids = [a["id"] for _, a in read.elements if "id" in a]
    assert len(ids) == len(set(ids))
    trials = {row["trial"] for row in settings_of(page)}
    links = {a["href"].removeprefix("#") for t, a in read.elements if t == "a"}
    assert links <= {*ids, *trials}
    assert "t005-lpa" in links


def test_the_verdict_comes_first_and_methods_last(page: str) -> None:
    order = [
        page.index(part)
        for part in (
            'class="verdict', 'data-chart="hero"', 'id="answer"', 'id="utility"', 'id="attackers"',
            'id="settings"', 'id="methods"', 'id="checks"',
        )
    ]  # fmt: skip
    assert order == sorted(order)
    assert 'id="reconstructions"' not in page  # none are kept
