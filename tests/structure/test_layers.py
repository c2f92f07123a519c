"""The order of the packages, the homes of the heavy libraries, and the habits that can be read from the source."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import simulator
from simulator import catalog

PACKAGE = Path(simulator.__file__).resolve().parent
ROOT = PACKAGE.parent
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if "_data" not in path.parts)

# Below each package stand those it may import; modules at the root of the package stand between `cost` and `views`,
# but for the nouns that everything uses.
BASE = {"units", "errors", "catalog", "metrics", "__init__"}
LEVEL = {
    "base": 0, "spec": 1, "graph": 2, "importers": 3, "techniques": 4, "mapping": 5, "cost": 6, "root": 7,
    "events": 8, "serving": 8, "plan": 9, "guard": 9, "views": 10, "cli": 11,
}  # fmt: skip
# Imports within functions that go upwards, each for a reason: methods of the result that draw it; the public
# names; the reader of files that the catalog needs when an index is stale.
UPWARD = {
    ("result", "views"),
    ("simulation", "views"),
    ("answer", "views"),
    ("__init__", "views"),
    ("__init__", "root"),
    ("catalog", "spec"),
}
HOMES = {
    "plotly": ("views",),
    "pulp": ("plan",),
    "dash": (),
    "torch": ("importers",),
    "onnx": ("importers",),
    "highspy": ("plan",),
    "click": ("cli",),
    "rich": ("cli", "views"),
    "pytest": ("guard",),
}


def dotted(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").as_posix().replace("/", ".")


def layer(module: str) -> str:
    """The layer of `pkg.mod` or of a module at the root."""
    first, _, rest = module.partition(".")
    if rest or (PACKAGE / first).is_dir():
        return first
    return "base" if first in BASE else "root"


def imports(path: Path) -> list[tuple[str, bool, bool]]:
    """(what is imported, at the top of the module, for type checkers only), in dotted form."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    top = {id(node) for node in tree.body}
    typing_only = {
        id(inner)
        for node in tree.body
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    found = []
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module] + [f"{node.module}.{alias.name}" for alias in node.names]
        found += [(name, id(node) in top, id(node) in typing_only) for name in names]
    return found


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_imports_go_down(path: Path) -> None:
    own = layer(dotted(path))
    assert own in LEVEL, f"{own} has no place in the order"
    for name, top, typing_only in imports(path):
        if not name.startswith("simulator.") or typing_only:
            continue
        inner = name.removeprefix("simulator.")
        if not (
            (PACKAGE / inner.replace(".", "/")).is_dir() or (PACKAGE / (inner.replace(".", "/") + ".py")).is_file()
        ):
            continue
        other = layer(inner)
        if not top and (dotted(path).rpartition(".")[2], other) in UPWARD:
            continue
        assert LEVEL[other] <= LEVEL[own], f"{dotted(path)} ({own}) imports {name} ({other})"


@pytest.mark.parametrize("library", sorted(HOMES))
def test_heavy_libraries_stay_at_home(library: str) -> None:
    for path in MODULES:
        for name, _, typing_only in imports(path):
            if name.split(".")[0] == library and not typing_only:
                assert layer(dotted(path)) in HOMES[library], f"{dotted(path)} imports {library}"
                if library == "torch":
                    assert path.name.startswith("torch_export"), dotted(path)


DASHBOARDS = sorted((ROOT / "dashboards").rglob("*.py"))


def test_dashboards_stand_on_everything_but_the_commands_and_carry_nothing() -> None:
    assert DASHBOARDS
    for path in DASHBOARDS:
        for name, _, _ in imports(path):
            first = name.split(".")[0]
            assert first != "tests", path
            # The table of commands and the listing of names are read; no command is run.
            commands = ("simulator.cli.scenario", "simulator.cli.list")
            assert not name.startswith("simulator.cli") or name.startswith(commands), f"{path} imports {name}"
    for folder in ("validation", "examples"):
        for path in (ROOT / folder).rglob("*.py"):
            assert not [name for name, _, _ in imports(path) if name.split(".")[0] == "dashboards"], path


def test_dash_is_loaded_by_the_server_alone() -> None:
    """Answers are data: only what builds HTML, and what serves it, knows Dash and Flask."""
    for path in DASHBOARDS:
        found = {name.split(".")[0] for name, _, _ in imports(path)} & {"dash", "flask", "werkzeug"}
        assert not found or path.stem in ("app", "components", "controls"), f"{path} imports {found}"


def test_torch_and_dash_have_one_home_each() -> None:
    for folder, allowed in (("validation", ("microbench",)), ("dashboards", ()), ("examples", ())):
        for path in (ROOT / folder).rglob("*.py"):
            for name, _, _ in imports(path):
                if name.split(".")[0] == "torch":
                    assert set(allowed) & set(path.relative_to(ROOT).parts), path
                if name.split(".")[0] == "dash":
                    assert folder == "dashboards", path


def test_nothing_imports_the_validation() -> None:
    for path in MODULES:
        assert not [name for name, _, _ in imports(path) if name.split(".")[0] in ("validation", "tests", "dashboards")]


@pytest.mark.parametrize("path", [*MODULES, *DASHBOARDS], ids=lambda path: path.relative_to(ROOT).as_posix())
def test_modules_are_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) < 400


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_what_is_public_is_documented(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    if not text.strip():
        return
    assert ast.get_docstring(tree), "the module"

    def undocumented(body: list[ast.stmt], owner: str) -> list[str]:
        found = []
        for node in body:
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                continue
            if node.name.startswith("_"):
                continue
            inherited = any("override" in ast.unparse(mark) for mark in node.decorator_list)
            if not ast.get_docstring(node) and not inherited:
                found.append(f"{owner}{node.name}")
            if isinstance(node, ast.ClassDef):
                found += undocumented(node.body, f"{node.name}.")
        return found

    assert undocumented(tree.body, "") == []


def names_of_things() -> set[str]:
    """Names, titles' first words and vendors of every shipped device and model, long enough to be told from words."""
    found: set[str] = set()
    for kind in ("hardware", "model"):
        for path in catalog.files(kind):  # type: ignore[arg-type]
            data = yaml.load(path.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
            found |= {path.stem, str(data.get("vendor") or "")}
            found |= {str(alias) for alias in data.get("aliases") or []}
    return {name.lower() for name in found if len(name) >= 4 and re.search(r"\d", name)}


def code_strings(path: Path) -> list[str]:
    """Every string of a module but its docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    documented: set[int] = set()
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            documented |= {
                id(part.value) for part in body if isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant)
            }
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documented
    ]


def test_code_names_no_device_and_no_model() -> None:
    names = names_of_things()
    offending = []
    for path in MODULES:
        # Readers of configs go by the families that the configs name themselves.
        if layer(dotted(path)) == "importers":
            continue
        offending += [(dotted(path), text) for text in code_strings(path) if text.lower() in names]
    assert offending == []


@pytest.mark.parametrize("module", ["simulator", "simulator.predict", "simulator.scenario", "simulator.catalog"])
def test_importing_loads_nothing_heavy(module: str) -> None:
    heavy = ("pandas", "numba", "plotly", "torch", "dash", "pulp", "scipy", "onnx", "pyarrow")
    program = f"import sys, {module}; print(','.join(name for name in {heavy} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == ""


def test_no_unfinished_work() -> None:
    for path in MODULES:
        text = path.read_text(encoding="utf-8")
        for word in ("TODO", "FIXME", "XXX", "NotImplementedError", "breakpoint("):
            assert word not in text, (dotted(path), word)


def test_powers_of_units_are_written_once() -> None:
    """1e12 and 2**30 stand in units.py; a sum of money or a table of measurements has its own."""
    for path in MODULES:
        if path.name == "units.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
                assert not re.fullmatch(r"2(\.0)? \*\* [1-4]0|1024 \*\* \d", ast.unparse(node)), dotted(path)
