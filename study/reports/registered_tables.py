"""Tables of the registered defenses and attackers for a terminal, of the registries, plug-ins included."""

from __future__ import annotations

import dataclasses
import re
import textwrap
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from mipoison.attacks import ATTACKS, SUITE
from mipoison.config import Config, literals, span
from mipoison.defenses import DEFENSES
from mipoison.plugins import installed
from study.settings.study_settings import DEFAULT_ATTACKERS, DEFAULT_DEFENSES

COSTS = {
    0: "seconds: closed form, or a small network",
    1: "about one training of a decoder",
    2: "several trainings",
}
"""Value of ``Config.COST`` -> its meaning."""
_END = re.compile(r"(?<!\bet al)(?<!\be\.g)(?<!\bi\.e)(?<!\bcf)(?<!\bvs)\. ")
"""The end of a sentence: a full stop that is not an abbreviation's."""


def first_sentence(config: type[Config]) -> str:
    """The first sentence of a configuration's summary, without code marks."""
    text = config.summary().replace("``", "").replace("`", "")
    return _END.split(text, maxsplit=1)[0].rstrip(".")


def knob_texts(config: type[Config]) -> list[str]:
    """Each knob of a search: name, default, range and what it does with its unit."""
    defaults = {f.name: f.default for f in dataclasses.fields(config)}
    return [
        f"{name} = {_shown(defaults.get(name))} ({span(knob)}): {knob.help}"
        for name, knob in config.KNOBS.items()
    ]


def defenses_table() -> Table:
    """A row per defense: what it does, its knobs (shared ones once), what it reads and changes."""
    table = Table(title=f"{len(DEFENSES)} defenses", title_justify="left", show_lines=True)
    for head in ("name", "what it does", "knobs: default (range searched)", "reads image", "keeps label"):
        table.add_column(head, overflow="fold", no_wrap=head == "name")
    shown: dict[tuple[str, ...], str] = {}
    for name, config in DEFENSES.items():
        mark = f"{name} *" if name in DEFAULT_DEFENSES else name
        knobs = tuple(knob_texts(config))
        first = shown.setdefault(knobs, name)
        table.add_row(
            Text(mark),
            Text(first_sentence(config)),
            Text(f"those of {first}" if knobs and first != name else "\n".join(knobs) or "-"),
            *_needs(config),
        )
    table.caption = "* searched by default. One in full, with its source: defenses NAME" + _plugins("defense")
    table.caption_justify = "left"
    return table


def attackers_table() -> Table:
    """A row per attacker: what it does, its options, its cost, where it is used."""
    table = Table(title=f"{len(ATTACKS)} attackers", title_justify="left", show_lines=True)
    for head in ("name", "what it does", "options", "cost", "in the suite"):
        table.add_column(head, overflow="fold", no_wrap=head == "name")
    for name, config in ATTACKS.items():
        mark = f"{name} *" if name in DEFAULT_ATTACKERS else name
        options = "\n".join(f"{option} = {_shown(value)}" for option, value in config.changed().items())
        table.add_row(
            Text(mark),
            Text(first_sentence(type(config))),
            Text(options or "-"),
            Text(f"{config.COST}: {COSTS[config.COST]}" if config.MAKES else "-"),
            Text("yes" if name in SUITE else "no"),
        )
    table.caption = "* by default. Cost in trainings of a decoder. One in full: attacks NAME" + _plugins(
        "attacker"
    )
    table.caption_justify = "left"
    return table


def _plugins(kind: str) -> str:
    """The installed plug-ins that are not loaded, for a caption."""
    registry: Any = DEFENSES if kind == "defense" else ATTACKS
    others = sorted(installed()[kind] - set(registry))
    return f". Installed plug-ins, to be listed with --plugin NAME: {', '.join(others)}" if others else ""


def defense_detail(name: str) -> RenderableType:
    """All that is registered of a defense: text, fields, needs, source."""
    config = DEFENSES[name]
    reads, keeps = _needs(config)
    facts = [("reads the image", reads), ("keeps the label", keeps)]
    if config.MAKES:
        made = config().make()
        facts += [
            ("draws random numbers", _yes(made.draws)),
            ("retrains the classifier", _yes(made.retrains)),
        ]
    return _detail(name, config, config(), [*facts, ("source", config.SOURCE or "-")])


def attacker_detail(name: str) -> RenderableType:
    """All that is registered of an attacker: text, options, cost, source."""
    config = ATTACKS[name]
    facts = [
        ("cost", f"{config.COST}: {COSTS[config.COST]}"),
        ("screens every setting", _yes(config.SCREENS)),
        ("in the suite", _yes(name in SUITE)),
        ("by default", _yes(name in DEFAULT_ATTACKERS)),
        ("source", config.SOURCE or "-"),
    ]
    return _detail(name, type(config), config, facts)


def _detail(name: str, cls: type[Config], config: Config, facts: list[tuple[str, str]]) -> RenderableType:
    text = textwrap.dedent("    " + (cls.__doc__ or "").strip()).replace("``", "")
    fields = Table(show_lines=False)
    for head in ("setting", "value", "values", "searched", "what"):
        fields.add_column(head, overflow="fold")
    for f in dataclasses.fields(cls):
        kind, optional = cls.field_kinds()[f.name]
        options = literals(cls).get(f.name)  # type: ignore[arg-type]
        values = ", ".join(map(str, options)) if options else kind.__name__ + " or none" * optional
        knob = cls.KNOBS.get(f.name)
        fields.add_row(
            *map(Text, (f.name, _shown(getattr(config, f.name)), values)),
            Text("-" if knob is None else span(knob)),
            Text("" if knob is None else knob.help),
        )
    lines = Text("\n".join(f"{what}: {fact}" for what, fact in facts))
    return Group(Text(name, style="bold"), Text(text), *([fields] if fields.row_count else []), lines)


def _needs(config: type[Config]) -> tuple[str, str]:
    """Whether a defense at its defaults reads images, and whether it keeps the label."""
    if not config.MAKES:
        return "-", "-"
    made = config().make()
    return _yes(made.reads_image), _yes(made.keeps_label)


def _yes(value: Any) -> str:
    return "yes" if value else "no"


def _shown(value: Any) -> str:
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
