"""Imports run one way in both packages, from room to room, and never back; each module has its tests.

A room is a sub-package, or a module beside them. LAYERS says which room may import which: in the study,
records -> search -> trial -> executors -> session -> reports -> entry scripts.
"""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

LAYERS: dict[str, list[set[str]]] = {
    "mipoison": [
        {"_moved", "config", "linalg", "process", "randomness", "simplex"},
        {"storage", "training", "metrics", "certificates"},
        {"data", "models"},
        {"victims", "alignment", "protocols"},
        {"service", "defenses"},
        {"attacks"},
        {"plugins"},
        {"scene_config"},
        {"scene"},
        {"serving", "deployment"},
        {"episode"},
        {"contract"},
    ],
    "study": [
        {"runtime"},
        {"records"},
        {"analysis"},
        {"search"},
        {"trial"},
        {"tracking"},
        {"settings"},
        {"executors"},
        {"session", "serving", "auditing"},
        {"reports"},
        {"paper", "bench"},
        {
            "attacks",
            "audit",
            "benchmark",
            "board",
            "check",
            "costs",
            "defenses",
            "evaluate",
            "pareto",
            "protect",
            "render",
            "report",
            "reproduce",
            "scaling",
            "serve",
        },
        {"examples"},
    ],
}
"""Rooms of each package, lowest layer first. A room imports rooms of its own or of lower layers."""

FORBIDDEN_OUTSIDE = {"ray", "optuna", "study", "tyro", "rich"}
"""Packages that the library never imports."""
AT_ROOT = 18
"""Most Python files at a package's root: in the study one for each sub-command."""
ARROWS = 100
"""Bound of the pairs of rooms of the study of which one imports the other."""

WITHOUT_TESTS = {
    "study.executors.base": "an interface: types alone",
    "mipoison.alignment.engine": "the base of all engines: test_engines.py runs it with each of them",
    "mipoison.data.drawing": "tested by what is drawn: test_splits.py",
    "mipoison.data.loading": "tested with each data set: test_datasets.py",
    "study.paper.measured": "tested with the tables that show it: test_tables.py, test_comparisons.py",
    "study.paper.notes": "texts that stand under the paper's tables",
    "study.records.status": "one constant",
    "study.settings.display": "fields alone; test_study_settings.py checks their bounds",
    "study.settings.groups": "fields alone; test_study_settings.py checks their bounds",
    "mipoison.metrics.constants": "constants",
}
"""Modules that hold nothing to be tested, and why. A package's ``__init__`` is tested with what it offers."""


def modules() -> dict[str, Path]:
    """Dotted name -> file of every module of both packages."""
    out = {}
    for path in sorted(p for package in LAYERS for p in (ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        out[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return out


MODULES = modules()


def imports_of(name: str, source: str | None = None) -> set[str]:
    """Dotted names that a module imports, including imports in functions and for type checking."""
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


def room_of(name: str) -> tuple[str, str] | None:
    """Package and room of a module; None for other modules and for the packages themselves."""
    pieces = name.split(".")
    return (pieces[0], pieces[1]) if pieces[0] in LAYERS and len(pieces) > 1 else None


def rooms_imported(name: str) -> set[tuple[str, str]]:
    return {room for i in imports_of(name) if (room := room_of(i)) is not None}


def arrows(package: str) -> set[tuple[str, str]]:
    """All pairs (room, room that it imports)."""
    return {
        (own[1], room[1])
        for name in MODULES
        if (own := room_of(name)) is not None and own[0] == package
        for room in rooms_imported(name)
        if room[0] == package and room != own
    }


def closure(name: str) -> set[str]:
    """All modules of both packages that importing a module loads, including each package's ``__init__``."""
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


@pytest.mark.parametrize("package", LAYERS)
def test_every_room_has_a_layer(package: str) -> None:
    named = set().union(*LAYERS[package])
    rooms = {room[1] for name in MODULES if (room := room_of(name)) is not None and room[0] == package}
    assert rooms - named == set(), "give the new room a layer above"
    assert named - rooms == set(), "a layer names a room that is gone"
    assert sum(map(len, LAYERS[package])) == len(named)


def rooms_on_the_page(package: str, text: str) -> list[str]:
    """Rooms in the first column of a package's table on the architecture page, from top to bottom."""
    section = text.partition(f"## `{package}`")[2].partition("\n## ")[0]
    first_cells = re.findall(r"^\| ([^|]+) \|", section, flags=re.MULTILINE)
    return [name for cell in first_cells for name in re.findall(r"`(\w+)`", cell)]


@pytest.mark.parametrize("package", LAYERS)
def test_the_architecture_page_lists_every_room_from_the_ground_up(package: str) -> None:
    depth = {room: i for i, layer in enumerate(LAYERS[package]) for room in layer if room != "_moved"}
    listed = rooms_on_the_page(package, (ROOT / ".docs/pages/architecture.md").read_text())
    assert sorted(listed) == sorted(depth)
    assert [depth[room] for room in listed] == sorted(depth.values())


def test_every_module_on_the_architecture_page_exists() -> None:
    """Dotted names in backticks: a module of a package, or a name that is defined in one."""
    text = (ROOT / ".docs/pages/architecture.md").read_text().partition("## The way of a trial")[2]
    names = re.findall(r"`((?:\w+\.)+\w+)`", text)
    assert names
    for name in names:
        full = name if name.startswith("mipoison.") else f"study.{name}"
        module, _, defined = full.rpartition(".")
        if full not in MODULES and not name.endswith((".py", ".parquet")):
            assert re.search(rf"^(?:def|class) {defined}\b", MODULES[module].read_text(), re.MULTILINE), name


@pytest.mark.parametrize("package", LAYERS)
def test_few_files_at_the_root(package: str) -> None:
    assert len(list((ROOT / package).glob("*.py"))) <= AT_ROOT


@pytest.mark.parametrize("name", [n for n in MODULES if n.startswith("mipoison")])
def test_the_library_never_imports_the_study_or_its_tools(name: str) -> None:
    assert not {i.split(".")[0] for i in imports_of(name)} & FORBIDDEN_OUTSIDE


@pytest.mark.parametrize("name", [n for n, path in MODULES.items() if path.name != "__init__.py"])
def test_a_module_has_a_test_file_of_its_name(name: str) -> None:
    path = MODULES[name].relative_to(ROOT)
    tests = ROOT / "tests" / path.with_name(f"test_{path.name}")
    assert tests.exists() != (name in WITHOUT_TESTS), f"{tests.relative_to(ROOT)} is missing (or not needed)"


def test_no_module_without_tests_is_gone() -> None:
    assert set(WITHOUT_TESTS) <= set(MODULES)


@pytest.mark.parametrize("package", LAYERS)
def test_imports_run_one_way(package: str) -> None:
    depth = {room: i for i, layer in enumerate(LAYERS[package]) for room in layer}
    assert {(a, b) for a, b in arrows(package) if depth[b] > depth[a]} == set()


@pytest.mark.parametrize("package", LAYERS)
def test_there_is_no_circle_of_rooms(package: str) -> None:
    """Not within a layer either: in a circle the order of imports would matter."""
    left = arrows(package)
    while left:
        bottom = {b for _, b in left} - {a for a, _ in left}
        assert bottom, f"a circle among {sorted(left)}"
        left = {(a, b) for a, b in left if b not in bottom}


def test_the_study_has_few_arrows() -> None:
    assert len(arrows("study")) < ARROWS


@pytest.mark.parametrize(
    ("room", "never"),
    [
        ("metrics", {"models", "defenses", "attacks", "scene", "episode", "service", "storage", "training"}),
        ("defenses", {"attacks", "scene", "episode", "service", "storage", "data", "victims", "serving"}),
        ("attacks", {"scene", "episode", "service", "storage", "data", "victims", "serving"}),
        ("models", {"defenses", "attacks", "data", "storage", "service", "victims", "serving"}),
        ("simplex", set().union(*LAYERS["mipoison"]) - {"simplex"}),
        ("config", set().union(*LAYERS["mipoison"]) - {"config"}),
    ],
)
def test_what_a_room_can_never_reach(room: str, never: set[str]) -> None:
    """Directly or indirectly: an attacker's module, for example, cannot reach the victim."""
    own = [n for n in MODULES if room_of(n) == ("mipoison", room)]
    assert own
    for name in own:
        reached = {found[1] for n in closure(name) if (found := room_of(n)) is not None}
        assert reached & never - {"_moved"} == set(), name


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
