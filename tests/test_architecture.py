"""What may import what: each package from itself and from those before it, and no circle anywhere."""

from __future__ import annotations

import io
import subprocess
import sys
import time
from graphlib import CycleError, TopologicalSorter

import pandas as pd
import pytest
from conftest import REPOSITORY

from rdlib.errors import UserError
from rdlib.study import architecture
from rdlib.study.architecture import PACKAGES


@pytest.fixture(scope="module")
def graph() -> dict[str, set[str]]:
    return architecture.graph()


def test_every_package_has_its_place():
    found = {path.parent.name for path in (REPOSITORY / "rdlib").glob("*/__init__.py")}
    assert found == set(PACKAGES) - {""}


def test_each_package_imports_only_from_those_before_it(graph):
    floor = {name: architecture.floor(name, architecture.modules()) for name in graph}
    wrong = [f"{a} imports {b}" for a, imported in graph.items() for b in sorted(imported) if floor[b] > floor[a]]
    assert not wrong


def test_imports_are_found_wherever_they_stand(tmp_path):
    (tmp_path / "a.py").write_text(
        "import rdlib.paths\nfrom rdlib import errors\nfrom rdlib.method.reward import reward\nimport json\n"
        "def late():\n    from rdlib.engines import models as m, nothing_there\n"
    )
    known = {"rdlib.paths", "rdlib.errors", "rdlib.method", "rdlib.method.reward", "rdlib.engines", "rdlib.streams"}
    known |= {"rdlib.engines.models"}
    found = architecture.imports(tmp_path / "a.py", known)
    assert found == known - {"rdlib.method", "rdlib.streams"}
    (tmp_path / "a.py").write_text("from . import errors\n")
    with pytest.raises(UserError, match="line 1"):
        architecture.imports(tmp_path / "a.py", known)


def test_the_picture_is_of_the_present_code():
    kept = (REPOSITORY / "docs/architecture.csv").read_text()
    assert kept == architecture.table().to_csv(index=False), "the imports have changed: run `make docs`"
    drawn = (REPOSITORY / "docs/architecture.svg").read_text()
    names = {line.split(",")[1].rpartition(".")[2] for line in kept.splitlines()[1:]}
    assert not {name for name in names - set(PACKAGES) if name not in drawn}


def test_every_import_is_counted_once_where_it_belongs():
    text = "package,module,imports\ntop modules,rdlib.a,\nx,rdlib.x.b,rdlib.a rdlib.x.c\nx,rdlib.x.c,rdlib.a\n"
    counted = architecture.counts(pd.read_csv(io.StringIO(text), keep_default_na=False))
    assert counted.to_dict() == {"top modules": {"top modules": 0, "x": 2}, "x": {"top modules": 0, "x": 1}}


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
