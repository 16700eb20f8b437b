"""What may import what: each package from itself and from those before it, and no circle anywhere."""

from __future__ import annotations

import ast
import subprocess
import sys
import time
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from conftest import REPOSITORY

# The packages in their order, after the modules at the top. `micro` is the world alone: pretraining is of the study.
PACKAGES = ("", "micro", "tasks", "engines", "method", "evidence", "study")
FOLDERS = ("rdlib", "bench")


def modules() -> dict[str, Path]:
    """Every module of the project by its dotted name."""
    found = {}
    for folder in FOLDERS:
        for path in (REPOSITORY / folder).rglob("*.py"):
            name = ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = path
    return found


def imports(path: Path, known: set[str]) -> set[str]:
    """The project's modules that a module imports, at the top or late, for types or for good."""
    named: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            named |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            named |= {full if (full := f"{node.module}.{alias.name}") in known else node.module for alias in node.names}
    return named & known


@pytest.fixture(scope="module")
def graph() -> dict[str, set[str]]:
    paths = modules()
    return {name: imports(path, set(paths)) for name, path in paths.items()}


def floor(module: str) -> int:
    """The place of a module's package in the order; the benchmarks come after all."""
    package, *parts = module.split(".")
    if package != "rdlib":
        return len(PACKAGES)
    is_package = (REPOSITORY.joinpath(*module.split(".")) / "__init__.py").is_file()
    return PACKAGES.index("" if not parts or (len(parts) == 1 and not is_package) else parts[0])


def test_every_package_has_its_place():
    found = {path.parent.name for path in (REPOSITORY / "rdlib").glob("*/__init__.py")}
    assert found == set(PACKAGES) - {""}


def test_each_package_imports_only_from_those_before_it(graph):
    wrong = [f"{a} imports {b}" for a, imported in graph.items() for b in sorted(imported) if floor(b) > floor(a)]
    assert not wrong


def test_no_circle_is_left(graph):
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(reversed(error.args[1])))


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("rdlib.method.reward", {"transformers", "trl", "accelerate", "vllm", "matplotlib", "sklearn"}),
        ("rdlib.method.ppo_core", {"trl", "vllm", "matplotlib"}),
        ("rdlib.study.figures", {"torch", "transformers"}),
        ("rdlib.study.jobs", {"torch", "transformers"}),
    ],
)
def test_a_module_brings_no_more_than_it_needs(module, heavy):
    code = f"import sys, {module}; print(*({heavy!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_importing_the_package_is_free():
    def seconds(code: str) -> float:
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True)
        return time.perf_counter() - started

    assert min(seconds("import rdlib") for _ in range(5)) < 0.2
