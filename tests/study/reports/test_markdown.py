"""Markdown of a study: the tables, whatever the terminal; pictures of the settings that are worth one."""

import io

import pandas as pd
from rich.console import Console

from study.analysis.frontier import configuration_table
from study.reports.markdown import MARKDOWN_WIDTH, markdown, print_tables
from study.reports.reconstructions import chosen_settings

ABOUT = {"study": "a*b", "scale": "quick"}


def test_the_page_holds_the_terminals_tables(episodes: pd.DataFrame) -> None:
    text = markdown(episodes, None, ABOUT, 0.02)
    assert text.startswith("# a\\*b\n\n![frontier](frontier.png)\n")  # a name is no markup
    sink = io.StringIO()
    print_tables(episodes, None, Console(file=sink, width=MARKDOWN_WIDTH, color_system=None), ABOUT, 0.02)
    body = "\n".join(line.rstrip() for line in sink.getvalue().splitlines())
    assert body.strip() in text
    assert "\x1b" not in text
    assert markdown(episodes, None, ABOUT, 0.02) == text


def test_fresh_seeds_have_tables_of_their_own(episodes: pd.DataFrame) -> None:
    fresh = episodes.assign(seed=episodes["seed"] + 100)
    text = markdown(episodes, fresh, ABOUT, 0.02)
    assert text.count("On the fresh seeds alone:") == 1
    assert "On the fresh seeds alone:" not in markdown(episodes, None, ABOUT, 0.02)


def test_of_each_family_the_best_is_shown(episodes: pd.DataFrame) -> None:
    settings = configuration_table(episodes, max_accuracy_drop=0.02)
    found = chosen_settings(settings)
    assert found["defense"].tolist()[:2] == ["none", "label-only"]
    assert found["defense"].is_unique
    for _, row in found.iloc[2:].iterrows():
        family = settings[settings["defense"] == row["defense"]]
        fine = family[family["feasible"]] if family["feasible"].any() else family
        assert row["worst_reconstruction_error"] == fine["worst_reconstruction_error"].max()
