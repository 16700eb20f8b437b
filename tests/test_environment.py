"""constraints.txt, environment.yml, pyproject.toml and what is installed say the same."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, packages_distributions, requires, version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

import bootstrap  # noqa: E402
from pins import installed_closure  # noqa: E402

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
CORE = [Requirement(text) for text in PROJECT["project"]["dependencies"]]
DEV = [Requirement(text) for text in PROJECT["project"]["optional-dependencies"]["dev"]]
DIRECT = CORE + DEV


def exact(lines: list[str]) -> dict[str, str]:
    """Map canonical names to versions; every line must be `name==version` without a local part."""
    pins = {}
    for line in lines:
        match = re.fullmatch(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.]+)", line)
        assert match, f"{line!r} is not an exact pin of a public release"
        name = canonicalize_name(match[1])
        assert name not in pins, f"{name} is pinned twice"
        pins[name] = match[2]
    return pins


@pytest.fixture(scope="module")
def pins() -> dict[str, str]:
    return exact(bootstrap.pins((ROOT / "constraints.txt").read_text(encoding="utf-8")))


def test_direct_dependencies_are_pinned_within_their_ranges_and_installed_as_pinned(pins):
    for need in DIRECT:
        name = canonicalize_name(need.name)
        assert name in pins, f"{name} of pyproject.toml is not in constraints.txt"
        assert need.specifier.contains(pins[name]), f"constraints.txt has {name} {pins[name]}, not {need}"
        # A local part (+cpu, +cu130) names the build, not the release.
        assert Version(version(need.name)).public == pins[name]
    (vllm,) = (Requirement(text) for text in PROJECT["project"]["optional-dependencies"]["vllm"])
    assert str(vllm.specifier).startswith("==") and "vllm" not in pins  # which stays out of this environment


def test_environment_yml_has_the_same_pins_and_a_python_the_project_allows(pins):
    entries = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    listed = next(entry["pip"] for entry in entries if isinstance(entry, dict))
    assert listed[0] == "-e .[dev]" and exact(listed[1:]) == pins
    python = next(Requirement(e.replace("=", "==", 1)) for e in entries if str(e).startswith("python="))
    (wanted,) = python.specifier
    assert Version(wanted.version) in SpecifierSet(PROJECT["project"]["requires-python"])
    assert PROJECT["project"]["requires-python"] == f">={'.'.join(map(str, bootstrap.OLDEST))}"


def test_the_lock_has_the_same_pins_with_hashes_and_no_host(pins):
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    blocks = re.findall(r"^(\S+==\S+) \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", text, re.MULTILINE)
    assert exact([pin for pin, _ in blocks]) == pins
    rest = [line for line in text.splitlines() if not re.match(r"#|\S+==|    --hash=sha256:", line)]
    assert rest == [] and "://" not in text


def test_everything_installed_for_the_project_is_pinned(pins):
    try:
        version("rdlib")
    except PackageNotFoundError:
        pytest.skip("rdlib is run from its folder here, not installed")
    closure = installed_closure("rdlib", ("dev",))
    closure.pop("rdlib")
    # torch's CUDA builds name their own companions exactly (nvidia-*, triton); the CPU build has none.
    needs = [Requirement(text) for text in requires("torch")]
    by_torch = {canonicalize_name(need.name) for need in needs if str(need.specifier).startswith("==")}
    assert {name: v for name, v in closure.items() if name not in by_torch} == pins


def imported_modules(path: Path) -> set[str]:
    """Top-level names of the absolute imports in a Python file."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module.split(".")[0])
    return names


def test_rdlib_imports_only_what_pyproject_declares():
    extras = PROJECT["project"]["optional-dependencies"]
    declared = {canonicalize_name(need.name) for need in CORE} | (set(extras) - {"dev"})
    owners = packages_distributions()
    for path in sorted((ROOT / "rdlib").rglob("*.py")):
        for module in imported_modules(path) - set(sys.stdlib_module_names) - {"rdlib"}:
            dists = {canonicalize_name(name) for name in owners.get(module, [module])}
            assert dists & declared, f"{path.relative_to(ROOT)} imports {module}: declare it in pyproject.toml"


# --- scripts/bootstrap.py -------------------------------------------------------------------------


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A folder with this project's pins, and a build that installs nothing."""
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    monkeypatch.setattr(bootstrap, "ROOT", tmp_path)
    monkeypatch.setattr(bootstrap, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(bootstrap, "STAMP", tmp_path / ".venv" / ".stamp")
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: None)
    monkeypatch.setattr("venv.EnvBuilder.create", fake_environment)
    return tmp_path


def fake_environment(self, folder):
    """What venv makes, without an interpreter in it."""
    (Path(folder) / "bin").mkdir(parents=True, exist_ok=True)
    (Path(folder) / "bin" / "python").touch()


def builds(capsys) -> bool:
    """Whether bootstrap found something to do."""
    bootstrap.main()
    return "Building" in capsys.readouterr().out


def edit(path: Path, old: str, new: str) -> None:
    """Replace text that must be there."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_an_environment_is_built_again_where_a_pin_a_requirement_or_the_interpreter_changed(checkout, capsys):
    assert builds(capsys) and not builds(capsys)
    (checkout / "constraints.txt").touch()
    edit(checkout / "pyproject.toml", "line-length = 120", "line-length = 111")
    edit(checkout / "constraints.txt", "# The exact", "# Exact")
    assert not builds(capsys)
    edit(checkout / "constraints.txt", "torch==", "torch==9")
    assert builds(capsys)
    edit(checkout / "pyproject.toml", '"tqdm', '"tqdm[telegram]')
    assert builds(capsys) and not builds(capsys)
    (checkout / ".venv" / "bin" / "python").unlink()
    assert builds(capsys)


def test_an_interrupted_build_is_redone(checkout, capsys, monkeypatch):
    assert builds(capsys)
    edit(checkout / "constraints.txt", "torch==", "torch==9")

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            bootstrap.main()
    edit(checkout / "constraints.txt", "torch==9", "torch==")  # even back at the pins it once had
    assert builds(capsys)


def test_an_old_python_is_refused_in_one_sentence(checkout, monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 10, 14))
    monkeypatch.setattr(bootstrap.platform, "python_version", lambda: "3.10.14")
    with pytest.raises(SystemExit, match=r"3\.11 or newer is needed, found 3\.10\.14"):
        bootstrap.main()
    assert not (checkout / ".venv").exists()


def test_another_checkouts_environment_behind_a_link_is_not_emptied(checkout, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    (other / "kept").touch()
    (checkout / ".venv").symlink_to(other)
    with pytest.raises(SystemExit, match=r"is a link to .*remove the link"):
        bootstrap.main()
    assert (other / "kept").exists()
