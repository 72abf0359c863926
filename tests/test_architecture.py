"""A line of code knows its room: who may import whom, and who may name NumPy, files or clocks."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "tinygan"

# Room -> the rooms it may import from. Imports point one way; optim knows flat arrays alone.
MAY_IMPORT = {
    "errors": set(),
    "backend": {"errors"},
    "noise": {"backend", "errors"},
    "nn": {"noise", "backend", "errors"},
    "optim": {"nn", "backend", "errors"},
    "gradcheck": {"nn", "noise", "backend", "errors"},
    "gan": {"nn", "noise", "backend", "errors"},
    "data": {"noise", "backend", "errors"},
    "metrics": {"data", "optim", "nn", "noise", "backend", "errors"},
    "presets": {"gan", "optim", "nn", "noise", "backend", "errors"},
    "run": {"presets", "metrics", "data", "gan", "optim", "nn", "noise", "backend", "errors", ""},
}
MAY_NAME_NUMPY = {"backend", "data", "metrics", "run", "gradcheck"}
ARRAY_LIBRARIES = {"np", "numpy", "cp", "cupy", "cupyx", "torch", "scipy"}
# Pictures, files, clocks, terminals: the business of run (and of data, which reads files).
WORLDLY = {
    *("matplotlib", "PIL", "tqdm", "logging", "sys", "shutil", "tempfile", "subprocess", "random"),
    *("io", "os", "pathlib", "gzip", "zlib", "pooch", "requests", "time", "datetime", "threading"),
}
FILES = {"io", "os", "pathlib", "gzip", "zlib", "pooch", "requests", "time", "threading"}
ALLOWED = {"data": FILES, "backend": {"os", "threading"}}  # files; the team of threads


def room(path: Path) -> str:
    """The room of a file: the first name below tinygan/; "" for the package's own front door."""
    first = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return "" if first == "__init__" else first


SOURCES = sorted(path for path in PACKAGE.rglob("*.py") if room(path) not in ("", "__main__"))
each_source = pytest.mark.parametrize(
    "path", SOURCES, ids=[str(path.relative_to(PACKAGE)) for path in SOURCES]
)


def imports(tree: ast.AST) -> set[str]:
    """Every module that is imported, in full: "tinygan.nn.cache", "numpy"."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are written in full"
            found.add(node.module or "")
            if node.module == "tinygan":
                found |= {f"tinygan.{alias.name}" for alias in node.names}
    return found


def names(tree: ast.AST) -> set[str]:
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


def array_library_named(tree: ast.AST) -> set[str]:
    return ARRAY_LIBRARIES & (names(tree) | {name.split(".")[0] for name in imports(tree)})


def rooms_imported(tree: ast.AST) -> set[str]:
    ours = {name for name in imports(tree) if name.split(".")[0] == "tinygan"}
    parts = {name.split(".")[1] if "." in name else "" for name in ours}
    return parts & (MAY_IMPORT.keys() | {""}) or parts


def worldly_things(tree: ast.AST, allowed: set[str]) -> set[str]:
    modules = {name.split(".")[0] for name in imports(tree)} & WORLDLY
    called = {
        n.func.id
        for n in ast.walk(tree)
        if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)
    }
    return modules - allowed | called & {"print", "input", "open", "exec", "eval"}


@each_source
def test_only_some_rooms_name_an_array_library(path):
    allowed = {"np", "numpy"} if room(path) in MAY_NAME_NUMPY else set()
    if path.name == "cupy_backend.py":
        allowed |= {"cupy", "cp", "cupyx"}
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not array_library_named(tree) - allowed


@each_source
def test_imports_point_one_way(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = rooms_imported(tree) - {room(path)}
    assert found <= MAY_IMPORT[room(path)]


@each_source
def test_nothing_below_run_touches_the_world(path):
    if room(path) == "run":
        return
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not worldly_things(tree, ALLOWED.get(room(path), set()))


def test_only_the_backend_package_imports_the_cupy_backend():
    users = [
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if "tinygan.backend.cupy_backend" in imports(ast.parse(path.read_text(encoding="utf-8")))
    ]
    # graph.py for its types alone; nobody but cupy_backend.py imports graph.py.
    assert users == ["backend/__init__.py", "backend/graph.py"]


def test_an_objective_and_the_loop_know_no_layer_class():
    for path in (PACKAGE / "gan").glob("*.py"):
        found = imports(ast.parse(path.read_text(encoding="utf-8")))
        ours = {name for name in found if name.startswith("tinygan.nn")}
        assert ours <= {"tinygan.nn.network", "tinygan.nn.cache"}, path.name


def test_every_room_has_its_rules():
    assert {room(path) for path in SOURCES} == MAY_IMPORT.keys()


# ---- the rules can fail ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    [
        "import numpy as np",
        "from numpy import exp",
        "y = np.exp(x)",
        "import cupy",
        "import numpy.linalg",
    ],
)
def test_naming_an_array_library_is_seen(source):
    assert array_library_named(ast.parse(source))


def test_an_import_upwards_is_seen():
    tree = ast.parse("def f():\n    from tinygan.gan import Game\nfrom tinygan import optim\n")
    assert rooms_imported(tree) == {"gan", "optim", ""}


@pytest.mark.parametrize(
    "source", ["print(1)", "open('x')", "import time", "from pathlib import Path"]
)
def test_touching_the_world_is_seen(source):
    assert worldly_things(ast.parse(source), set())
