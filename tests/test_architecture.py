"""What may import what, by the contracts in pyproject.toml, and that importing little is quick."""

from __future__ import annotations

import subprocess
import sys
import time
from graphlib import TopologicalSorter
from pathlib import Path

import grimp
import pytest
from conftest import REPOSITORY

LINT = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]


def test_every_import_keeps_the_contracts():
    done = subprocess.run(LINT, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_no_package_imports_a_module_that_imports_it():
    """The contract is about siblings; this adds a package's own `__init__`."""
    graph = grimp.build_graph("rdlib", "bench", cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    assert len(list(TopologicalSorter(imports).static_order())) == len(imports) > 100


@pytest.mark.parametrize("line", ["from rdlib.study import dag", "def late():\n    import rdlib.evidence.tables"])
def test_an_import_against_the_order_is_found(tmp_path, line):
    for path in [*(REPOSITORY / "rdlib").rglob("*.py"), *(REPOSITORY / "bench").rglob("*.py")]:
        copy = tmp_path / path.relative_to(REPOSITORY)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    with (tmp_path / "rdlib/tasks/places.py").open("a") as module:
        module.write(f"\n{line}\n")
    (tmp_path / "pyproject.toml").write_text((REPOSITORY / "pyproject.toml").read_text())
    done = subprocess.run(LINT, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "rdlib.tasks.places" in done.stdout


@pytest.mark.parametrize(
    ("modules", "heavy"),
    [
        (["rdlib.study.figures", "rdlib.study.jobs"], {"torch", "transformers"}),
        (
            ["rdlib.method.reward", "rdlib.method.ppo_core"],
            {"transformers", "trl", "vllm", "matplotlib", "accelerate", "sklearn"},
        ),
    ],
)
def test_a_module_brings_no_more_than_it_needs(modules, heavy):
    code = f"import sys, {', '.join(modules)}; print(*({heavy!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_importing_the_package_is_free():
    def seconds(code: str) -> float:
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True)
        return time.perf_counter() - started

    assert min(seconds("import rdlib") for _ in range(5)) < 0.2
