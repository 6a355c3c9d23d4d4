"""Imports point one way: the order that docs/architecture.md states, held against every import of the tree."""

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
MOST_LEVELS = 12  # from the lowest package to the programs


def stated_order() -> list[str]:
    (block,) = re.findall(r"```text\n(.*?)```", (ROOT / "docs/architecture.md").read_text(encoding="utf-8"), re.DOTALL)
    return [line.split()[0] for line in block.splitlines()]


@cache
def modules() -> dict[str, Path]:
    found = {}
    for path in sorted((ROOT / "tfrs_dlrm").glob("**/*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = path
    return found


def imported(path: Path) -> set[str]:
    """The modules of the tree that a file imports, anywhere in it."""
    known, names = modules(), set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            each = {f"{node.module}.{alias.name}" for alias in node.names}
            # Names of a module, or modules of a package.
            names |= {name if name in known else str(node.module) for name in each}
    return {name for name in names if name in known and name != "tfrs_dlrm"}


@cache
def arrows() -> dict[str, frozenset[str]]:
    return {name: frozenset(imported(path) - {name}) for name, path in modules().items() if name != "tfrs_dlrm"}


def room(module: str, order: list[str]) -> str:
    path = module.removeprefix("tfrs_dlrm.").replace(".", "/")
    rooms = [r for r in order if path == r or path.startswith(f"{r}/")]
    return max(rooms, key=len, default="")


def test_every_module_has_a_room_of_the_list():
    order = stated_order()
    homeless = [m for m in arrows() if not room(m, order) and modules()[m].name != "__init__.py"]
    assert not homeless


def test_imports_point_down_the_list():
    order = stated_order()
    upward = []
    for module, targets in arrows().items():
        here = room(module, order)
        for target in sorted(targets):
            there = room(target, order)
            if here and there and order.index(there) > order.index(here):
                upward.append(f"{module} imports {target}")
    assert not upward, "\n".join(upward)


def test_no_two_modules_import_each_other_on_any_way():
    graph, state, circles = arrows(), {}, []

    def visit(module, path):
        state[module] = "open"
        for target in sorted(graph[module]):
            if state.get(target) == "open":
                circles.append(" -> ".join([*path[path.index(target) :], target]))
            elif target not in state:
                visit(target, [*path, target])
        state[module] = "done"

    for module in graph:
        if module not in state:
            visit(module, [module])
    assert not circles, "\n".join(circles)


def test_there_are_few_levels_between_the_lowest_package_and_the_programs():
    order = stated_order()
    packages = list(dict.fromkeys(r.split("/")[0] for r in order))
    below = {p: set() for p in packages}
    for module, targets in arrows().items():
        here = room(module, order).split("/")[0]
        below.setdefault(here, set()).update(room(t, order).split("/")[0] for t in targets)

    @cache
    def level(package):
        return 1 + max((level(p) for p in below[package] if p not in (package, "")), default=0)

    levels = {p: level(p) for p in packages}
    assert max(levels.values()) + 1 <= MOST_LEVELS, levels  # train/ and export/ stand above all packages


def test_some_rooms_do_without_others():
    """The costly or surprising imports that no room may bring along."""
    graph = arrows()

    def reached(start):
        seen, todo = set(), [m for m in graph if m == start or m.startswith(f"{start}.")]
        while todo:
            module = todo.pop()
            if module not in seen:
                seen.add(module)
                todo += graph[module]
        return {m.removeprefix("tfrs_dlrm.") for m in seen}

    for start, never in (
        ("models", "tools"),
        ("serving.server", "serving.client"),
        ("serving.verification", "serving.server"),
    ):
        assert not [m for m in reached(f"tfrs_dlrm.{start}") if m == never or m.startswith(f"{never}.")]
