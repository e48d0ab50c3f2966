"""Imports run one way: datasets -> models -> defenses -> attacks -> metrics -> episode -> study."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "mipoison"

LAYERS: list[set[str]] = [
    {"_moved", "config", "randomness", "process", "simplex", "images", "imagefolder", "outputs"},
    {"storage", "s3", "datasets", "training", "memory", "ask", "arguments"},
    {"checkpoint", "fingerprints", "identity", "weights"},
    {"artifacts", "splits", "models", "victim"},
    {"alignment", "protocols", "stacked"},
    {"service", "defenses", "export"},
    {"attacks"},
    {"metrics"},
    {"scene", "scene_config", "wrap", "classifier_check"},
    {"unit"},
    {"protect"},
    {"episode"},
]
"""Parts of the library (modules or packages), lowest first: imports stay in a layer or go to earlier ones."""

FORBIDDEN_OUTSIDE = {"ray", "optuna", "study", "tyro", "rich"}


def modules() -> dict[str, Path]:
    """Dotted name -> file of everything in the library."""
    out = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        out[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return out


MODULES = modules()


def imports_of(name: str, source: str | None = None) -> set[str]:
    """Dotted names that a module imports anywhere in it, functions and type checking included."""
    path = MODULES[name]
    is_package = path.name == "__init__.py"
    found: set[str] = set()
    for node in ast.walk(ast.parse(source if source is not None else path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = name.split(".")
                parts = parts[: len(parts) - node.level + is_package]
                base = ".".join([*parts, base] if base else parts)
            found.add(base)
            found |= {f"{base}.{a.name}" for a in node.names if f"{base}.{a.name}" in MODULES}
        elif isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__"):
                found |= {str(a.value) for a in node.args if isinstance(a, ast.Constant)}
    return found


def part_of(name: str) -> str | None:
    """The part of the library that a module belongs to; None for others and for the package itself."""
    pieces = name.split(".")
    return pieces[1] if pieces[0] == "mipoison" and len(pieces) > 1 else None


def parts_imported(name: str) -> set[str]:
    return {part for i in imports_of(name) if (part := part_of(i)) is not None}


def closure(name: str) -> set[str]:
    """All library modules that importing a module loads, packages' ``__init__`` included."""
    seen: set[str] = set()
    queue = [name]
    while queue:
        current = queue.pop()
        if current in seen or current not in MODULES:
            continue
        seen.add(current)
        for found in imports_of(current):
            pieces = found.split(".")
            queue += [".".join(pieces[:i]) for i in range(1, len(pieces) + 1)]
    return seen


def test_every_part_has_a_layer() -> None:
    named = set().union(*LAYERS)
    parts = {part for name in MODULES if (part := part_of(name)) is not None}
    assert parts - named == set(), "give the new part a layer above"
    assert sum(map(len, LAYERS)) == len(named)


@pytest.mark.parametrize("name", MODULES)
def test_the_library_never_imports_the_study_or_its_tools(name: str) -> None:
    assert not {i.split(".")[0] for i in imports_of(name)} & FORBIDDEN_OUTSIDE


@pytest.mark.parametrize("name", [n for n in MODULES if part_of(n)])
def test_imports_run_one_way(name: str) -> None:
    depth = {part: i for i, layer in enumerate(LAYERS) for part in layer}
    own = part_of(name)
    assert own is not None
    assert {p for p in parts_imported(name) if depth[p] > depth[own]} == set()


@pytest.mark.parametrize(
    ("part", "never"),
    [
        (
            "metrics",
            {"models", "defenses", "attacks", "scene", "episode", "service", "artifacts", "training"},
        ),
        ("defenses", {"attacks", "scene", "episode", "service", "artifacts", "datasets", "splits"}),
        (
            "attacks",
            {"scene", "episode", "service", "artifacts", "storage", "datasets", "splits", "victim", "unit"},
        ),
        ("models", {"defenses", "attacks", "datasets", "splits", "artifacts", "service"}),
        ("simplex", set().union(*LAYERS) - {"simplex"}),
        ("config", set().union(*LAYERS) - {"config"}),
    ],
)
def test_what_a_part_can_never_reach(part: str, never: set[str]) -> None:
    """Also through what it imports: an attacker's module cannot get at the victim."""
    own = [n for n in MODULES if part_of(n) == part]
    assert own
    for name in own:
        reached = {p for n in closure(name) if (p := part_of(n)) is not None}
        assert reached & never == set(), name


def test_the_library_has_no_import_cycles() -> None:
    """Between parts: a cycle would make the order of imports matter."""
    edges: dict[str, set[str]] = {}
    for name in MODULES:
        if (part := part_of(name)) is not None:
            edges.setdefault(part, set()).update(parts_imported(name) - {part})
    while edges:
        leaves = [p for p, used in edges.items() if not used & set(edges)]
        assert leaves, f"a cycle among {sorted(edges)}"
        for leaf in leaves:
            del edges[leaf]


@pytest.mark.parametrize(
    "line",
    [
        "import mipoison.scene",
        "from mipoison import scene",
        "from mipoison.scene import Scene",
        "from ..scene import Scene",
        "from .. import scene",
        "def f():\n    import mipoison.scene as s",
        "if TYPE_CHECKING:\n    from mipoison.scene import Scene",
        "import importlib; importlib.import_module('mipoison.scene')",
    ],
)
def test_the_check_sees_every_way_to_import(line: str) -> None:
    assert "mipoison.scene" in imports_of("mipoison.attacks.decoder", line)
