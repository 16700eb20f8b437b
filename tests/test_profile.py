"""Profiles: what is refused and how, and that every setting is read."""

from __future__ import annotations

import ast
import math
import re
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, get_args

import pandas as pd
import pytest
import yaml
from conftest import REPOSITORY, tiny_settings
from hostile import STRANGE, assert_one_line, mutated, values
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from rdlib import profile as profiles
from rdlib.errors import UserError
from rdlib.profile import BASE, Profile, load_profile
from rdlib.study.specification import STAGES
from rdlib.study.stage import SHORTCUTS, open_stage
from rdlib.tasks.data import SPLITS

REQUIRED = {name for name, field in Profile.model_fields.items() if field.is_required()}
FILES = {path: yaml.safe_load(path.read_text()) for path in sorted((REPOSITORY / "params").glob("*.yaml"))}
PARAMS = [path for path, content in FILES.items() if "experiments" not in content and path.name != "claims.yaml"]


@pytest.fixture
def write(tmp_path):
    """Write a profile (a dictionary, or text as it is) and return its path."""

    def write(content, name="p.yaml"):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
        return path

    return write


def refused(path, overrides=None) -> str:
    """The message of the UserError that loading ends in: one sentence or two, on one line."""
    with pytest.raises(UserError) as caught:
        load_profile(path, overrides)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 400
    assert "Error" not in message.replace("UserError", "") or "Value error" in message
    return message


def changed(key: str, value) -> dict:
    """The tiny profile with one value changed; `key` is dotted."""
    content = tiny_settings()
    *path, last = key.split(".")
    inner = content
    for part in path:
        inner = inner[part]
    inner[last] = value
    return content


@pytest.mark.parametrize("path", PARAMS, ids=lambda p: p.name)
def test_the_profiles_of_the_repository_validate(path):
    profile = load_profile(path)
    assert profile.name == path.stem
    content = yaml.safe_load(path.read_text())
    assert set(content) <= {BASE, *Profile.model_fields} and (BASE in content or set(content) >= REQUIRED)


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("reward_modle", "reward_model"),
        ("ppo.kl_coeff", "kl_coef"),
        ("datasets.gsm.trian", "train"),
        ("teacher_sampling.high_temperature", "high_temperatures"),
        ("grid.lambda", "lam"),
    ],
)
def test_unknown_key(write, key, hint):
    message = refused(write(changed(key, 1)))
    assert repr(key) in message
    assert hint in message


BAD_VALUES = [
    *(("reward_model.lam", value) for value in (1.5, "half", math.nan)),
    *(("sft.epochs", value) for value in (0, 1.5, True)),  # YAML's yes is true, which Python takes for 1
    *(("ppo.kl_coef", value) for value in (math.inf, False)),
    *(("reward.no_answer", value) for value in (math.nan, -math.inf)),
    *(("grid.seeds", value) for value in ([], [-1], [2**32], [0, True])),
    ("grid.mismatch", ["negative_abs", "plus"]),  # values of an ablation are values of its setting
    ("grid.lam", [2]),
    ("reward_model.form", "concave"),
    ("voting.threshold", -0.1),
    ("sft.learning_rate", 0),
    ("teacher_sampling.high_temperatures", []),
    ("teacher_sampling.low_temperatures", [0.5, -1.0]),
    ("student_sampling.samples", None),
    ("ppo.temperature", 0.0),
    ("ppo.whiten_rewards", "perhaps"),
    ("reward.mismatch", "plus"),
    ("generation.batch_size", -1),
    ("datasets.gsm.source", "gsm9k"),
    ("name", "Bad Name"),
    ("datasets", None),
]


@pytest.mark.parametrize(("key", "value"), BAD_VALUES)
def test_bad_value(write, key, value):
    message = refused(write(changed(key, value)))
    assert key in message
    assert str(write(tiny_settings())) in message


def test_missing_sections_and_keys(write):
    for section in REQUIRED:
        content = tiny_settings()
        del content[section]
        assert repr(section) in refused(write(content))
    content = tiny_settings()
    del content["ppo"]["gamma"]
    assert "'ppo.gamma'" in refused(write(content))


CELL = {"dataset": "gsm", "teacher": "strong", "student": "small"}


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        *(
            ("grid.ablation_cells", [CELL, CELL | {key: "x"}], f"names the {key} 'x', which is not one of ")
            for key in CELL
        ),
        ("grid.ablation_cells", [CELL, CELL], "names the cell gsm/strong/small twice: keep one of the two"),
        ("grid.ablation_cells", [], "'grid.ablation_cells'"),
        ("grid.ablation_cells", [CELL | {"techer": "strong"}], "cells.0.techer': did you mean 'teacher'?"),
        ("grid.ablation_dataset", "gsm", "unknown key 'grid.ablation_dataset'"),
    ],
)
def test_the_ablation_cells_exist_are_some_and_each_once(write, key, value, words):
    assert words in refused(write(changed(key, value)))
    assert len(load_profile(write(changed("grid.ablation_cells", [CELL, CELL | {"dataset": "mmlu"}]))).datasets) == 2


def test_unreadable_files(write, tmp_path):
    assert "no profile" in refused(tmp_path / "absent.yaml")
    assert "cannot be read" in refused(tmp_path) and "cannot be read" in refused("a\0b.yaml")
    broken = write("name: micro\nppo: [1, 2\nsft: 3")
    assert "line 3" in refused(broken) and "YAML" in refused(broken)
    for text in ("", "# only a comment\n", "- a\n- b\n", "just text"):
        assert "no settings" in refused(write(text))
    binary = tmp_path / "b.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    refused(binary)


def test_a_key_that_is_there_twice_is_refused(write):
    """All but its last value would go unread."""
    text = yaml.safe_dump(tiny_settings())
    assert "line 2 (the key 'runs' is there twice)" in refused(write("runs: a\nruns: b\n" + text))
    assert "the key 'gamma' is there twice" in refused(write(text.replace("  gamma:", "  gamma: 0.5\n  gamma:")))


@pytest.mark.parametrize("section", ["datasets", "teachers", "students"])
def test_a_name_that_can_be_no_folders(write, section):
    for name in ("../x", "a/b", "", ".", "x" * 300, "a b"):
        content = tiny_settings()
        content[section][name] = next(iter(content[section].values()))
        assert "cannot be a folder's name" in refused(write(content))


def test_a_name_of_a_teacher_and_of_another_student(write):
    content = tiny_settings()
    content["students"]["strong"] = content["teachers"]["strong"]
    load_profile(write(content))
    content["students"]["strong"] = "models/weak"
    assert "'strong' names a teacher and another student" in refused(write(content))


# ---- overrides


def test_an_override_replaces_one_setting(write):
    path = write(tiny_settings())
    before, after = load_profile(path), load_profile(path, {"reward_model.lam": 0.25})
    assert after.reward_model.lam == 0.25
    assert after == before.model_copy(update={"reward_model": after.reward_model})
    assert load_profile(path).reward_model.lam == 0.5


def test_a_setting_that_the_file_leaves_to_its_default_can_be_overridden(write):
    content = tiny_settings()
    del content["baselines"]
    assert load_profile(write(content), {"baselines.dpo_beta": 0.5}).baselines.dpo_beta == 0.5


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        *((key, "reward_model.lam") for key in ("reward_model.lambda", "rewardmodel.lam", "lam")),
        ("reward_model", "reward_model."),
        *((key, "section.setting") for key in ("", 7)),
        ("ppo.kl_coef.x", "ppo.kl_coef"),
    ],
)
def test_unknown_override(write, key, hint):
    assert hint in refused(write(tiny_settings()), {key: 0.5})
    assert "'reward_model.lam'" in refused(write(tiny_settings()), {"reward_model.lam": 2})


@pytest.mark.parametrize(("key", "value"), [("grid.teacher_share", [0.5, 0.8]), ("reward_model.teacher_share", 0.2)])
def test_a_share_that_n_cannot_give_is_refused(write, key, value):
    """With n = 2 a query has four positives, so a share above 3/4 would silently be 3/4."""
    message = refused(write(changed(key, value)))
    assert "teacher_share" in message and "0.25 to 0.75" in message


# ---- every setting is read


def schema(model: type[BaseModel]):
    """(section, field) of every setting."""
    for name, field in model.model_fields.items():
        kinds = [field.annotation, *get_args(field.annotation)]
        inner = [k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)]
        if inner:
            yield from schema(inner[0])
        else:
            yield model.__name__, name


def attributes_read() -> set[str]:
    """Attribute names that the source reads."""
    trees = (ast.parse(path.read_text()) for path in (REPOSITORY / "rdlib").rglob("*.py") if path.name != "profile.py")
    nodes = (node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Attribute))
    return {node.attr for node in nodes if isinstance(node.ctx, ast.Load)}


def test_every_setting_is_read_somewhere():
    read = attributes_read() | set(SPLITS)  # rdlib.tasks.data reads the sizes of its SPLITS by name
    read |= set(re.findall(r"\bgrid\.(\w+)", (REPOSITORY / "params/experiments.yaml").read_text()))
    assert not [f"{section}.{name}" for section, name in schema(Profile) if name not in read]


def test_the_sections_of_stages_are_sections_of_the_profile():
    sections = {section for spec in STAGES.values() for section in spec.sections}
    assert sections <= set(Profile.model_fields)
    nested = {n for n, f in Profile.model_fields.items() if isinstance(f.annotation, type)}
    methods = {n for n in nested if issubclass(Profile.model_fields[n].annotation, BaseModel)} - {"grid", "hardware"}
    assert sections == methods, "a section that no stage names would change results without changing a key"
    for dotted in SHORTCUTS.values():
        section, name = dotted.split(".")
        assert name in Profile.model_fields[section].annotation.model_fields


# ---- profiles based on others


def test_a_profile_based_on_another_has_its_values_but_those_that_it_names(write, tmp_path):
    write(tiny_settings())
    (tmp_path / "more.yaml").write_text("base: p.yaml\nname: more\ndatasets: {gsm: {train: 7}}\n")
    (tmp_path / "most.yaml").write_text("base: more.yaml\ngrid: {seeds: [5, 6]}\n")
    first, most = load_profile(tmp_path / "p.yaml"), load_profile(tmp_path / "most.yaml")
    assert (most.name, most.datasets["gsm"].train, most.grid.seeds) == ("more", 7, [5, 6])
    assert most.datasets["gsm"].model_copy(update={"train": first.datasets["gsm"].train}) == first.datasets["gsm"]
    assert most.grid.model_copy(update={"seeds": first.grid.seeds}) == first.grid
    assert most.model_copy(update={n: getattr(first, n) for n in ("name", "datasets", "grid")}) == first


def test_a_changed_base_is_read_again(write, tmp_path):
    write(changed("name", "old"))
    (tmp_path / "more.yaml").write_text("base: p.yaml\n")
    assert load_profile(tmp_path / "more.yaml").name == "old"
    write(changed("name", "new"))
    assert load_profile(tmp_path / "more.yaml").name == "new"


@pytest.mark.parametrize(
    ("base", "problem"),
    [
        ("more.yaml", "more.yaml is based on itself"),
        ("[1]", "bad value for 'base'"),
        ("missing.yaml", "There is no profile .*missing.yaml"),
    ],
)
def test_a_bad_base_is_refused(tmp_path, base, problem):
    (tmp_path / "more.yaml").write_text(f"base: {base}\n")
    with pytest.raises(UserError, match=problem):
        load_profile(tmp_path / "more.yaml")


@pytest.mark.parametrize(
    ("teacher", "words"),
    [
        ({"prices": {"input": 1, "output": 2}}, "lacks the key 'teachers.t.prices.currency'"),
        ({"budget": 2.5}, "budget.money needs prices"),
        ({"request": {"effort": "low"}}, "unknown key 'teachers.t.request.effort': known keys there: body"),
        ({"request": {"body": {"n": 4}}}, "n is a setting of its own"),
        ({"leave_out": ["temperature"]}, "give teacher_sampling.temperatures: default"),
        ({"leave_out": ["tempature"]}, "bad value for 'teachers.t.leave_out.0'"),
        ({"sytem_prompt": "x"}, "unknown key 'teachers.t.sytem_prompt': did you mean 'system_prompt'?"),
        ({"engine": "transformers", "budget": {"tokens": 9}}, "t gives budget, which is for the engine openai alone"),
        ({"engine": "vllm", "thinking": "keep"}, "t gives thinking, which is for the engines openai and replay"),
    ],
)
def test_a_bad_teacher_behind_a_server_is_said_in_one_sentence(write, teacher, words):
    content = tiny_settings()
    content["teachers"] = {"t": {"model": "m", "engine": "openai", "base_url": "http://localhost:1/v1"} | teacher}
    content["grid"]["ablation_cells"] = [{"dataset": "gsm", "teacher": "t", "student": "small"}]
    assert words in refused(write(content))


def test_temperatures_default_takes_the_place_of_the_lists(write):
    content = tiny_settings()
    content["teacher_sampling"]["temperatures"] = "default"
    assert "takes the place of high_temperatures" in refused(write(content))
    content["teacher_sampling"] = {"temperatures": "default", "samples_per_temperature": 4}
    assert "is for teachers behind a server or recorded ones" in refused(write(content))


# ---- any profile loads with every value that it has, or ends in a sentence

WHOLE = {path: FILES[path] for path in PARAMS if BASE not in FILES[path]}
NAMES = ("revision", "engine", "base_url", "lora", "large", "strong", "small", "../..", "a/b")


@pytest.mark.fuzz
@given(st.sampled_from(sorted(WHOLE)).flatmap(lambda path: mutated(WHOLE[path], NAMES, most=3)))
def test_any_content_is_kept_or_refused(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.touch()
    profiles._loaded.clear()  # the file's text is the same in every case
    with pytest.MonkeyPatch.context() as patch:  # a YAML reader in Python takes ten times the time of the rest
        patch.setattr(profiles, "_parse_once", lambda text: content)
        try:
            loaded = load_profile(path)
        except UserError as error:
            return assert_one_line(error)
    assert_kept(content, loaded)


YAML_VALUES = ["9" * 5000, "[" * 2000, "{a: " * 500, "!!python/object:os.system x", "!!binary a", "!!set {a}"]
YAML_VALUES += "&a[*a] 2001-13-45 2001-01-01 0x 0b 1_0 1:60 = << ~ .inf -.inf .nan *b ' 1e-3".split()
YAML_LINES = ["name: other", "ppo: {}", "? [a]", "<<: {a: 1}", "--- ", "%YAML 9.9", "1: 2", "&x y: *x", "\ud800: 1"]
SMOKE = REPOSITORY / "params/smoke.yaml"
SHORT = [f"{BASE}: {SMOKE}", *SMOKE.read_text().splitlines()[2:24]]


@st.composite
def changed_text(draw) -> bytes:
    """The text of a short profile with characters, lines or values changed."""
    lines = list(SHORT)
    for _ in range(draw(st.integers(1, 2))):
        place, how = draw(st.integers(0, len(lines) - 1)), draw(st.sampled_from("value twice in gone new".split()))
        line = lines[place]
        column, into = draw(st.integers(0, len(line))), draw(st.sampled_from(":{}[]-&*!#|>'\"%@`\t\0\x07é ?,"))
        new = {
            "value": [re.sub(r"(?<=: ).*", lambda _: draw(st.sampled_from(YAML_VALUES)), line)],
            "twice": [draw(st.sampled_from(lines)), line],
            "in": [line[:column] + into + line[column:]],
            "gone": [],
            "new": [draw(st.sampled_from(YAML_LINES)), line],
        }
        lines[place : place + 1] = new[how]
    return "\n".join(lines).encode("utf-8", "surrogatepass")


@pytest.mark.fuzz
@given(changed_text())
def test_any_text_is_kept_or_refused(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "text.yaml"
    path.write_bytes(content)
    try:
        loaded = load_profile(path)
    except UserError as error:
        return assert_one_line(error)
    assert_kept(yaml.safe_load(content), loaded)
    top = re.findall(rb"^([a-z_]+):", content, re.MULTILINE)
    assert len(top) == len(set(top))  # else a section was left out


def assert_kept(content: Any, loaded: Profile) -> None:
    """Every value of the file is in the profile, and names can be folders'."""
    assert isinstance(content, dict) and not differences(content, loaded.model_dump() | {BASE: content.get(BASE)}, "")
    for name in (loaded.name, *loaded.datasets, *loaded.teachers, *loaded.students):
        assert name not in ("", ".", "..") and Path(name).name == name
    for name in loaded.teachers.keys() & loaded.students.keys():
        assert loaded.teachers[name] == loaded.students[name]


def differences(given: Any, got: Any, place: str) -> list[str]:
    """Where values of the file are not those of the profile."""
    if isinstance(given, dict) and isinstance(got, dict):
        pairs = [(given[key], got.get(key, "nothing"), key) for key in given]
    elif isinstance(given, list) and isinstance(got, list) and len(given) == len(got):
        pairs = [(a, b, i) for i, (a, b) in enumerate(zip(given, got, strict=True))]
    else:
        return [] if means(given, got) else [f"{place} is {given!r}, and {got!r} was taken"]
    return [one for a, b, key in pairs for one in differences(a, b, f"{place}.{key}")]


def means(given: Any, got: Any) -> bool:
    """Whether a value means the other: a number may be written as text, and true as yes or 1, but not 1 as true."""
    if isinstance(got, bool):
        words = ("true", "yes", "on", "y", "t", "1") if got else ("false", "no", "off", "n", "f", "0")
        return given.lower() in words if isinstance(given, str) else given == got
    if isinstance(given, bool):
        return False
    if isinstance(given, str) and isinstance(got, int | float):
        try:
            return float(Decimal(given.strip())) == got
        except InvalidOperation:
            return False
    return (float(given) if isinstance(given, int) and isinstance(got, float) else given) == got


# ---- any parameters of a notebook give their stage in the study's folder, or end in a sentence

AXES = {"dataset": ("gsm", "mmlu"), "teacher": ("strong", "weak"), "student": ("small", "large", "strong")}
SECTIONS = "ppo reward_model sft voting generation training reward student_sampling".split()
SETTINGS = [f"{name}.{key}" for name in SECTIONS for key in Profile.model_fields[name].annotation.model_fields]
SETTINGS += ["datasets.gsm", "datasets.gsm.train"]
MORE = ["lam", "threshold", "mismatch", "teacher_share", "datset", "x", "reward_source", "_y", "seed", "profile"]


@st.composite
def notebook_parameters(draw) -> tuple[str, dict[str, Any]]:
    """(stage, the variables of its notebook)."""
    name = draw(st.sampled_from(sorted(STAGES)))
    variables: dict[str, Any] = {"profile": "params/smoke.yaml", "seed": draw(st.integers(0, 3)), "pd": pd}
    variables |= {axis: draw(st.sampled_from(AXES[axis])) for axis in STAGES[name].axes if axis in AXES}
    variables |= {"method": draw(st.sampled_from(STAGES[name].methods))} if STAGES[name].methods else {}
    variables["overrides"] = draw(st.dictionaries(st.sampled_from(SETTINGS), values, max_size=2))
    if draw(st.integers(0, 4)) == 0:  # texts of the user's own, which are part of a folder's name
        variables["overrides"]["generation.stop"] = draw(st.lists(st.sampled_from(STRANGE), min_size=1, max_size=2))
    variables |= draw(st.dictionaries(st.sampled_from([*MORE, *AXES]), values, max_size=1))
    shares = st.sampled_from([0.25, 0.5, 1, "0.5"])
    return name, variables | draw(st.dictionaries(st.sampled_from(MORE[:2]), shares, max_size=1))


@pytest.mark.fuzz
@given(notebook_parameters())
def test_any_parameters_give_their_stage_or_are_refused(case):
    name, variables = case
    try:
        stage = open_stage(name, variables)
        folder = stage.folder
    except UserError as error:
        return assert_one_line(error)
    for axis in STAGES[name].axes:
        assert getattr(stage, axis) == variables.get(axis)
    assert stage.seed == variables["seed"] < 2**32
    shortcuts = {SHORTCUTS[k]: v for k, v in variables.items() if k in SHORTCUTS and v is not None}
    for key, value in ((variables.get("overrides") or {}) | shortcuts).items():
        section, _, setting = key.partition(".")
        assert not differences(value, getattr(stage.profile, section).model_dump()[setting], key)
    parent = REPOSITORY / stage.profile.runs / stage.profile.name / stage.dataset
    levels = 2 + sum(bool(getattr(stage, axis)) for axis in ("teacher", "student", "method"))
    assert len(folder.relative_to(parent).parts) == levels and ".." not in folder.parts
    assert folder.name.isprintable() and len(folder.name.encode("utf-8", "surrogatepass")) < 240
