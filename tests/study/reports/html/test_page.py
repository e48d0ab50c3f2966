"""The report page shows the records' numbers, escapes their texts, and loads nothing."""

from __future__ import annotations

import base64
import hashlib
import re

from tests.study.reports.html.helpers import Reader


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
    script = re.search(r"</script>\n<script>(.*)</script></body>", page, flags=re.DOTALL)
    assert script
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert "default-src 'none'" in policy
    assert f"script-src 'sha256-{digest}'" in policy


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
    assert {a["href"] for t, a in read.elements if t == "a"} <= {f"#{i}" for i in ids}
