"""Text from records is shown literally: in Markdown, on a terminal, in figures, in messages."""

from __future__ import annotations

import io
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from planted import HOSTILE
from rich.console import Console

from mipoison.config import ConfigError
from mipoison.storage.files import Storage
from study.records.constraints import Constraints
from study.reports.figures import figure_bytes, grid_figure
from study.reports.findings import Findings
from study.reports.markdown import markdown, print_tables
from study.runtime.plain import fenced, markdown_text, visible, visible_line
from study.tracking.mlflow import check_address
from tests.study.analysis.helpers import failed, make_episodes

CONTROLS = [chr(i) for i in (*range(9), *range(11, 32), 127, 0x9B, 0x202E, 0x2066, 0x200B, 0x2028, 0xFEFF)]


@pytest.fixture(scope="module")
def hostile() -> pd.DataFrame:
    """Records in which every text is hostile."""
    rows = make_episodes(n_lpa=3, seeds=3).to_dict("records")
    rows = [row | {"device": HOSTILE, "versions": HOSTILE, "dataset": HOSTILE} for row in rows]
    rows[-1] = failed(rows[-1], HOSTILE)
    return pd.DataFrame(rows)


def test_nothing_hidden_is_left() -> None:
    for control in CONTROLS:
        for made in (visible(f"a{control}b"), visible_line(f"a{control}b"), markdown_text(f"a{control}b")):
            assert control not in made
            assert made.startswith("a")
    assert visible("ä\n\t²") == "ä\n\t²"
    assert visible_line("a\r\n# b") == "a # b"


def test_the_page_of_hostile_records_is_one_heading_and_two_blocks(hostile: pd.DataFrame) -> None:
    about = {"study": HOSTILE, "scale": HOSTILE}
    text = markdown(Findings(episodes=hostile, about=about, constraints=Constraints()))
    lines = text.splitlines()
    outside: list[str] = []
    blocks = 0
    while lines:
        line = lines.pop(0)
        if not line.startswith("```"):
            outside.append(line)
            continue
        mark, blocks = line.removesuffix("text"), blocks + 1
        end = next(i for i, inner in enumerate(lines) if inner.strip().startswith(mark))
        assert lines[end] == mark  # nothing inside looks like the end of the block
        del lines[: end + 1]
    assert blocks == 2
    assert len([line for line in outside if line.startswith("#")]) == 1
    for plain in ("<b>", "[l](http://e)", "\n```", "|a|"):
        assert plain not in "\n".join(outside)
    assert not [c for c in CONTROLS if c in text]


def test_a_fence_is_longer_than_any_in_it() -> None:
    assert fenced("a\n`````\nb").splitlines()[0] == "``````text"
    assert fenced("a") == "```text\na\n```"


def test_markdown_shows_a_name_as_it_is() -> None:
    markdown_it = pytest.importorskip("markdown_it", reason="markdown-it is not installed")

    class Words(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.tags, self.text = list[str](), ""

        def handle_starttag(self, tag: str, attrs: object) -> None:
            self.tags.append(tag)

        def handle_data(self, data: str) -> None:
            self.text += data

    for name in (
        "# a",
        "*a* _b_ `c`",
        "<img src=x>",
        "[a](b) ![c](d)",
        "a|b",
        "&lt;",
        "~~a~~",
        "\\*a",
        HOSTILE,
    ):
        words = Words()
        words.feed(markdown_it.MarkdownIt().render(f"name {markdown_text(name)}"))
        assert words.tags == ["p"], name
        assert words.text.strip() == f"name {visible_line(name)}"


def test_a_terminal_gets_no_code(hostile: pd.DataFrame) -> None:
    sink = io.StringIO()
    console = Console(file=sink, width=120, force_terminal=True, color_system=None)
    about = {"study": HOSTILE, "scale": "[red]x"}
    print_tables(Findings(episodes=hostile, about=about, constraints=Constraints()), console)
    assert "[31m" in sink.getvalue()  # printed as text
    assert "[red]x" in sink.getvalue()
    assert not [c for c in CONTROLS if c in sink.getvalue()]


def test_figures_take_no_formula_from_a_name() -> None:
    images = np.zeros((2, 1, 8, 8))
    assert figure_bytes(lambda path: grid_figure([("$\\frac$", images), ("b", images)], path, "$\\frac$ x $"))


SECRET = "wJalrXUtnFEMI"


@pytest.mark.parametrize(
    "uri",
    [
        f"s3://b/p?endpoint_override=user:{SECRET}@host",
        f"s3://b/p?endpoint_override=user%3A{SECRET}%40host",
        f"s3://b/p?endpoint_override=http://{SECRET}@host",
        f"s3://b/p?endpoint_override=host?{SECRET}",
        f"s3://b/p?{SECRET}",
        f"s3://b/p?foo={SECRET}",
        f"s3://b/p?region={SECRET}/x",
        f"s3://b/p?scheme={SECRET}",
        f"s3://b/p#{SECRET}",
        f"s3://u:{SECRET}@[b/p",
        f"foo://b/p?q={SECRET}",
        f"foo://u:{SECRET}@b/p",
    ],
)
def test_no_message_repeats_a_secret_of_an_address(uri: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Storage(uri)
    assert SECRET not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_environment_s_endpoint_holds_no_secret_either(monkeypatch: pytest.MonkeyPatch) -> None:
    for endpoint in (f"user:{SECRET}@host", f"http://{SECRET}@host", f"host/?x={SECRET}"):
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        with pytest.raises(ConfigError) as caught:
            Storage("s3://b/p")
        assert SECRET not in str(caught.value)


def test_a_tracking_server_s_address_holds_no_token(tmp_path: Path) -> None:
    for address in (f"http://{SECRET}@host", f"http://host/?token={SECRET}", f"http://[{SECRET}"):
        with pytest.raises(ConfigError) as caught:
            check_address(address)
        assert SECRET not in str(caught.value)
