"""No record's text is markup."""

from __future__ import annotations

from tests.study.reports.html.helpers import HOSTILE, Reader


def test_what_records_say_is_text(page: str) -> None:
    read = Reader(page)
    assert [tag for tag, _ in read.elements].count("script") == 2
    assert not [a for t, a in read.elements if t == "img" and a.get("src") == "x"]
    assert HOSTILE in read.text  # the error in the table of failures, the name in the heading
    assert HOSTILE not in page
