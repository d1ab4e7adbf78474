"""Which package may import which: the arrows of the house, read from the code."""

import ast
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "apdet"

# From the top floor down. A package may import any floor below its own, and itself.
FLOORS = [
    {"cli"},
    {"retrieval", "inference"},
    {"engine"},
    {"report"},
    {"config", "checkpoint", "evaluation"},
    {"data", "modeling"},
    {"losses"},
]
# All may import these, which import nothing else of apdet. `compat` serves the names of earlier
# versions, and imports their modules only when a user asks for them.
GROUND = {"__init__", "compat", "errors", "files", "platforms", "signals", "text"}


@cache
def modules():
    """The module of each file, by its dotted name, with the names that it imports from apdet."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.is_relative_to(PACKAGE / "configs"):
            continue
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts).removesuffix(".__init__")] = _imports(path)
    return found


def _imports(path):
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in names if name.split(".")[0] == "apdet"}


def room_of(name):
    """The package of a module or name: "losses" for apdet.losses.ap; "__init__" for apdet."""
    return [*name.split("."), "__init__"][1]


def floor_of(room):
    return next(i for i, rooms in enumerate(FLOORS) if room in rooms)


def arrows():
    """(importing module, imported name) wherever an import leaves its package."""
    return [
        (module, name)
        for module, names in modules().items()
        for name in names
        if room_of(name) != room_of(module)
    ]


def test_every_package_is_on_a_floor():
    rooms = {room_of(module) for module in modules()}
    assert rooms <= set().union(*FLOORS) | GROUND


def test_no_import_goes_up_or_sideways():
    wrong = [
        f"{module} imports {name}"
        for module, name in arrows()
        if (room := room_of(module)) not in GROUND
        and (other := room_of(name)) not in {*GROUND, "__version__"}
        and floor_of(other) <= floor_of(room)
    ]
    assert not wrong


def test_the_ground_floor_imports_no_floor_above_it():
    assert {room_of(name) for module, name in arrows() if room_of(module) in GROUND} <= GROUND


def test_losses_need_neither_detectron2_nor_the_rest_of_apdet():
    for path in (PACKAGE / "losses").rglob("*.py"):
        text = path.read_text()
        assert "detectron2" not in {
            name.split(".")[0]
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for name in (
                [node.module] if isinstance(node, ast.ImportFrom) else [node.names[0].name]
            )
        }, path


def test_no_modules_import_each_other_in_a_circle():
    graph = {
        module: {target for name in names if (target := _module_of(name)) and target != module}
        for module, names in modules().items()
    }
    done, path = set(), []

    def visit(module):
        assert module not in path, f"a circle: {' -> '.join([*path, module])}"
        if module in done:
            return
        path.append(module)
        for target in sorted(graph[module]):
            visit(target)
        path.pop()
        done.add(module)

    for module in graph:
        visit(module)


def _module_of(name):
    """The module that a dotted name is, or is in; None for the root package."""
    known = modules()
    while name not in known:
        name = name.rpartition(".")[0]
    return None if name == "apdet" else name


@pytest.mark.parametrize("room", sorted(set().union(*FLOORS)))
def test_each_package_says_what_it_holds(room):
    if (PACKAGE / room).exists():
        assert ast.get_docstring(ast.parse((PACKAGE / room / "__init__.py").read_text()))
