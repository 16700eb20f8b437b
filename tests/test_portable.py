"""The numerical mode: set before torch however a process starts, refused where contradicted, the same bytes as ever."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import traceback
from collections import defaultdict

import long_tables
import nbformat
import pandas as pd
import pytest
from conftest import REPOSITORY, make_root, stage_in
from torch.utils._python_dispatch import TorchDispatchMode

from rdlib import artifacts, numerics
from rdlib.errors import UserError
from rdlib.method import training
from rdlib.study import verify

sys.path.insert(0, str(REPOSITORY / "scripts"))
import portable_test

IN_MODE = numerics.caveat() is None
in_mode = pytest.mark.skipif(not IN_MODE, reason=f"no portable numbers here: {numerics.caveat()}")


def printed_by(code: str, **variables: str) -> str:
    """What a new process prints that knows nothing of the mode but these variables."""
    ours = {*numerics.MODE, *numerics.OVERRULING, numerics.SWITCH}
    environment = {name: value for name, value in os.environ.items() if name not in ours} | variables
    words = [sys.executable, "-c", code]
    return subprocess.run(
        words, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True
    ).stdout.strip()


# ---- the mode in a process


@in_mode
def test_importing_any_module_of_the_package_sets_the_mode():
    code = f"import os, rdlib.tasks.answers; print([os.environ.get(name) for name in {list(numerics.MODE)}])"
    assert printed_by(code) == str(list(numerics.MODE.values()))


def test_a_variable_of_the_users_own_is_left_as_it_is():
    code = "import os, rdlib; print(os.environ['MKL_CBWR'], os.environ['OMP_NUM_THREADS'])"
    assert printed_by(code, MKL_CBWR="AVX2", OMP_NUM_THREADS="3") == "AVX2 3"


def test_the_switch_leaves_all_but_the_threads_alone():
    code = f"import os, rdlib; print(sorted(set(os.environ) & set({list(numerics.MODE)})))"
    assert printed_by(code, RDLIB_NUMERICS="native") == "['OMP_NUM_THREADS']"


@in_mode
def test_torch_before_the_mode_is_refused():
    code = """
import torch
from rdlib import numerics
try:
    numerics.require()
except Exception as error:
    print(error)
"""
    assert printed_by(code).startswith("torch was imported before rdlib")
    assert printed_by(code, **numerics.MODE) == ""  # whoever sets the variables may import in any order


def test_notebooks_import_nothing_that_loads_torch_before_rdlib():
    for path in sorted((REPOSITORY / "notebooks").glob("*.ipynb")):
        cells = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
        names: list[str] = []
        for node in ast.walk(ast.parse("\n".join(c for c in cells if not c.lstrip().startswith(("%", "!"))))):
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
        packages = [name.partition(".")[0] for name in names]
        before = packages[: packages.index("rdlib")] if "rdlib" in packages else packages
        assert not {"torch", "transformers", "trl", "accelerate"} & set(before), path.name


# ---- what contradicts it


@in_mode
def test_this_process_is_in_the_mode():
    numerics.require()
    assert numerics.record()["numerics"] == numerics.PORTABLE


@in_mode
@pytest.mark.parametrize("name", [*numerics.MODE, *numerics.OVERRULING])
def test_a_contradicting_variable_is_refused_by_name(monkeypatch, name):
    monkeypatch.setenv(name, "7")
    with pytest.raises(UserError, match=f"{name}=7.*RDLIB_NUMERICS=native"):
        numerics.require()
    assert numerics.record()["numerics"] == numerics.NATIVE


@in_mode
def test_threads_given_to_torch_are_refused(monkeypatch):
    monkeypatch.setattr("torch.get_num_threads", lambda: 2)
    with pytest.raises(UserError, match="2 threads"):
        numerics.require()


def test_the_switch_says_what_it_costs(monkeypatch):
    monkeypatch.setenv(numerics.SWITCH, numerics.NATIVE)
    monkeypatch.setenv("MKL_CBWR", "AVX2")
    numerics.require()
    assert "RDLIB_NUMERICS" in numerics.caveat()
    assert numerics.record()["numerics"] == numerics.NATIVE
    monkeypatch.setenv(numerics.SWITCH, "fast")
    with pytest.raises(UserError, match="RDLIB_NUMERICS.*'fast'"):
        numerics.require()


@pytest.fixture
def cpuinfo(tmp_path, monkeypatch):
    """A function that makes a text what the system tells of its processor."""

    def tell(text: str) -> None:
        path = tmp_path / "cpuinfo"
        path.write_text(text)
        monkeypatch.setattr(numerics, "CPUINFO", path)
        monkeypatch.setattr("platform.machine", lambda: "x86_64")
        numerics.processor.cache_clear()

    yield tell
    numerics.processor.cache_clear()


def test_a_processor_without_avx2_computes_and_says_so(cpuinfo, monkeypatch):
    cpuinfo("model name\t: Old Processor\nflags\t\t: sse2 avx fma\n\nmodel name\t: second core\n")
    assert numerics.processor() == {"processor": "Old Processor", "instruction_sets": ["fma"]}
    numerics.require()
    assert "no AVX2" in numerics.caveat() and "differ" in numerics.caveat()
    for name in numerics.MODE:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(numerics, "_torch_came_first", False)  # which it remembers: put back for the tests after this
    numerics.enter()  # kernels that the processor does not have would end the process
    assert set(os.environ) & set(numerics.MODE) == set(numerics.THREADS)


def test_another_architecture_computes_and_says_so(monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    numerics.require()
    assert "aarch64" in numerics.caveat()


# ---- stages and what they record


@in_mode
def test_a_stage_of_a_portable_profile_refuses_before_it_computes(tmp_path, monkeypatch, capsys):
    stage = stage_in(make_root(tmp_path), "00_data")
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx512")
    with pytest.raises(UserError, match="ATEN_CPU_CAPABILITY=avx512"):
        stage.run()
    assert not stage.done
    monkeypatch.setenv(numerics.SWITCH, numerics.NATIVE)
    assert stage.run().done
    assert "RDLIB_NUMERICS is native" in capsys.readouterr().out


def test_a_stage_of_another_profile_takes_what_is_set(tmp_path, monkeypatch, capsys):
    stage = stage_in(make_root(tmp_path, numerics="native"), "00_data")
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    stage.run()
    assert artifacts.read_manifest(stage.folder)["environment"]["numerics"] == numerics.NATIVE
    assert "bytes" not in capsys.readouterr().out


def test_a_manifest_names_processor_and_mode():
    found = artifacts.environment()
    assert found["numerics"] in (numerics.PORTABLE, numerics.NATIVE)
    assert found["processor"] and isinstance(found["instruction_sets"], list)


@pytest.mark.parametrize(("made", "told"), [("native", True), ("portable", False)])
def test_results_of_another_mode_are_told_apart(tmp_path, made, told):
    answers = [{"benchmark": "gsm", "teacher": "t", "student": "s", "method": "ours", "variant": "", "id": "a"}]
    table = pd.DataFrame(answers).assign(correct=True, group="")
    folder = long_tables.write(tmp_path / "seed3", 3, correctness=table)
    record = artifacts.read_json(folder / "provenance.json")
    record["environments"] = {name: one | {"numerics": made} for name, one in record["environments"].items()}
    artifacts.write_json(folder / "provenance.json", record)
    note = verify.other_mode(tmp_path)
    assert (note is not None) == told and (not told or "seed3" in note)
    record["profile"] = "params/paper.yaml"
    artifacts.write_json(folder / "provenance.json", record)
    assert verify.other_mode(tmp_path) is None  # computed in whatever was set, and never meant otherwise


def test_trainers_take_exact_roots(tmp_path, monkeypatch):
    stage = stage_in(make_root(tmp_path), "03_sft_warmup", "ours_wo_r")
    assert training.common_arguments(stage, tmp_path)["optim"] == "adamw_torch_fused"


# ---- the chain

VECTOR_LIBRARY = "acos asin atan cos erf erfc erfinv exp log log2 log10 sin sqrt tan tanh trunc".split()  # MKL's


class Called(TorchDispatchMode):
    """The operations of torch that are called, each with the source files that it was called from."""

    def __init__(self) -> None:
        super().__init__()
        self.names: dict[str, set[str]] = defaultdict(set)

    def __torch_dispatch__(self, operation, types, arguments=(), options=None):
        name = operation.overloadpacket.__name__.rstrip("_")
        if name in VECTOR_LIBRARY or name not in self.names:
            self.names[name] |= {frame.filename.rpartition("/")[2] for frame in traceback.extract_stack()}
        return operation(*arguments, **(options or {}))


@in_mode
@pytest.mark.slow
def test_what_the_stages_leave_to_mkls_vector_library_is_in_the_chain_and_roots_are_grpos_alone():
    with Called() as called:
        portable_test.stages()
    found = {name for name in VECTOR_LIBRARY if name in called.names}
    tested = {name.partition("/")[2] for name in json.loads(portable_test.GOLDEN.read_text())["hashes"]}
    assert found - {"sqrt"} and found - {"sqrt"} <= tested
    assert "grpo_trainer.py" in called.names["sqrt"] and not called.names["sqrt"] & {"ppo.py", "optimizer.py"}


@in_mode
@pytest.mark.slow
@pytest.mark.golden
def test_the_chain_has_the_same_bytes_here_as_where_its_golden_hashes_were_made():
    golden = json.loads(portable_test.GOLDEN.read_text())
    found = json.loads(portable_test.run([sys.executable]))
    first = portable_test.first_difference(golden["hashes"], found["hashes"])
    assert first is None, portable_test.advice(first, golden["made_by"], found["made_by"])


def test_the_advice_tells_code_from_processor():
    made = {"processor": "one", "packages": {"torch": "2.13.0+cpu"}, "commit": "c" * 40}
    here = {"processor": "another", "packages": {"torch": "2.13.0"}}
    text = portable_test.advice("06_ppo/model/model.safetensors", made, here)
    assert "06_ppo/model/model.safetensors" in text and "another" in text and portable_test.COMMAND in text
    assert "torch" not in text.partition("packages")[2]  # another build of the same version
    here["packages"] = {"torch": "2.14.0"}
    assert "torch 2.14.0" in portable_test.advice("step 1/loss", made, here)
    assert portable_test.COMMAND not in portable_test.advice("operations/exp", made, made)
