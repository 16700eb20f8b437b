"""Profiles: what is refused and how, and that every setting is read."""

from __future__ import annotations

import ast
from typing import get_args

import pytest
import yaml
from conftest import REPOSITORY, tiny_settings
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from rdlib import profile as profile_module
from rdlib.errors import UserError
from rdlib.profile import BASE, Profile, load_profile

REQUIRED = {name for name, field in Profile.model_fields.items() if field.is_required()}
PARAMS = sorted(path for path in (REPOSITORY / "params").glob("*.yaml") if path.name != "claims.yaml")


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


def test_the_repository_has_the_two_profiles():
    assert {"micro.yaml", "smoke.yaml"} <= {path.name for path in PARAMS}


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


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("reward_model.lam", 1.5),
        ("reward_model.lam", "half"),
        ("reward_model.form", "concave"),
        ("voting.threshold", -0.1),
        ("sft.epochs", 0),
        ("sft.epochs", 1.5),
        ("sft.learning_rate", 0),
        ("teacher_sampling.high_temperatures", []),
        ("teacher_sampling.low_temperatures", [0.5, -1.0]),
        ("student_sampling.samples", None),
        ("ppo.temperature", 0.0),
        ("ppo.whiten_rewards", "perhaps"),
        ("reward.mismatch", "plus"),
        ("generation.batch_size", -1),
        ("datasets.gsm.source", "gsm9k"),
        ("grid.seeds", []),
        ("grid.lam", [2]),
        ("name", "Bad Name"),
        ("datasets", None),
        # Numbers that are none would end in a run that diverges
        ("reward.no_answer", float("nan")),
        ("reward.no_answer", float("-inf")),
        ("ppo.kl_coef", float("inf")),
        ("reward_model.lam", float("nan")),
        # Every value of an ablation must be one that the setting can take
        ("grid.mismatch", ["negative_abs", "plus"]),
        ("grid.seeds", [-1]),
        ("grid.seeds", [2**32]),
        # YAML's yes is true, which Python takes for 1
        ("sft.epochs", True),
        ("ppo.kl_coef", False),
        ("grid.seeds", [0, True]),
    ],
)
def test_bad_value(write, key, value):
    message = refused(write(changed(key, value)))
    assert key in message
    assert str(write(tiny_settings())) in message


@pytest.mark.parametrize("section", sorted(REQUIRED))
def test_missing_section(write, section):
    content = tiny_settings()
    del content[section]
    assert repr(section) in refused(write(content))


def test_missing_key(write):
    content = tiny_settings()
    del content["ppo"]["gamma"]
    assert "'ppo.gamma'" in refused(write(content))


@pytest.mark.parametrize(("key", "value"), [("dataset", "arc"), ("teacher", "medium"), ("student", "tiny")])
def test_the_ablation_cells_must_exist(write, key, value):
    cell = {"dataset": "gsm", "teacher": "strong", "student": "small"}
    message = refused(write(changed("grid.ablation_cells", [cell, cell | {key: value}])))
    assert f"grid.ablation_cells names the {key} {value!r}, which is not one of " in message


def test_the_ablation_cells_are_some_and_each_once(write):
    cell = {"dataset": "gsm", "teacher": "strong", "student": "small"}
    other = cell | {"dataset": "mmlu"}
    assert len(load_profile(write(changed("grid.ablation_cells", [cell, other]))).grid.ablation_cells) == 2
    message = refused(write(changed("grid.ablation_cells", [cell, other, cell])))
    assert "grid.ablation_cells names the cell gsm/strong/small twice: keep one of the two" in message
    assert "'grid.ablation_cells'" in refused(write(changed("grid.ablation_cells", [])))
    message = refused(write(changed("grid.ablation_cells", [cell | {"techer": "strong"}])))
    assert "unknown key 'grid.ablation_cells.0.techer': did you mean 'teacher'?" in message
    assert "unknown key 'grid.ablation_dataset'" in refused(write(changed("grid.ablation_dataset", "gsm")))


def test_unreadable_files(write, tmp_path):
    assert "no profile" in refused(tmp_path / "absent.yaml")
    assert "cannot be read" in refused(tmp_path)
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


@pytest.mark.parametrize("value", ["2001-13-45", "9" * 5000, "[" * 2000, "&a [*a]", "!!python/object:os.system x"])
def test_yaml_that_python_cannot_hold(write, value):
    assert "profile" in refused(write(f"name: {value}\n"))


def test_a_path_that_is_none():
    assert "cannot be read" in refused("a\0b.yaml")


@pytest.mark.parametrize("section", ["datasets", "teachers", "students"])
@pytest.mark.parametrize("name", ["../x", "a/b", "", ".", "x" * 300, "a b"])
def test_a_name_that_can_be_no_folders(write, section, name):
    content = tiny_settings()
    content[section][name] = next(iter(content[section].values()))
    assert "cannot be a folder's name" in refused(write(content))


def test_a_name_of_a_teacher_and_of_another_student(write):
    content = tiny_settings()
    content["students"]["strong"] = content["teachers"]["strong"]
    load_profile(write(content))
    content["students"]["strong"] = "models/weak"
    assert "'strong' names a teacher and another student" in refused(write(content))


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
places = st.sampled_from(
    [
        "name",
        "runs",
        "teachers",
        "datasets",
        "datasets.gsm",
        "datasets.gsm.train",
        "sft",
        "ppo.gamma",
        "grid",
        "grid.lam",
    ]
)


@given(places, plain)
def test_any_content_loads_or_is_refused_in_words(tmp_path_factory, key, value):
    path = tmp_path_factory.mktemp("any") / "p.yaml"
    path.write_text(yaml.safe_dump(changed(key, value)))
    try:
        load_profile(path)
    except UserError as error:
        assert str(path) in str(error)


# ---- overrides


def test_an_override_replaces_one_setting(write):
    path = write(tiny_settings())
    before, after = load_profile(path), load_profile(path, {"reward_model.lam": 0.25})
    assert after.reward_model.lam == 0.25
    assert after == before.model_copy(update={"reward_model": after.reward_model})
    assert load_profile(path).reward_model.lam == 0.5


@pytest.mark.parametrize(
    ("key", "value"), [("voting.flip_share", 0.1), ("reward.source", "vote"), ("baselines.dpo_beta", 0.5)]
)
def test_a_setting_that_the_file_leaves_to_its_default_can_be_overridden(write, key, value):
    content = tiny_settings()
    del content["baselines"]
    section, name = key.split(".")
    assert getattr(getattr(load_profile(write(content), {key: value}), section), name) == value


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("reward_model.lambda", "reward_model.lam"),
        ("rewardmodel.lam", "reward_model.lam"),
        ("lam", "reward_model.lam"),
        ("reward_model", "reward_model."),
        ("", "section.setting"),
        (7, "section.setting"),
        ("ppo.kl_coef.x", "ppo.kl_coef"),
        ("baselines.dpo_betta", "baselines.dpo_beta"),
    ],
)
def test_unknown_override(write, key, hint):
    assert hint in refused(write(tiny_settings()), {key: 0.5})


@pytest.mark.parametrize(("key", "value"), [("grid.teacher_share", [0.5, 0.8]), ("reward_model.teacher_share", 0.2)])
def test_a_share_that_n_cannot_give_is_refused(write, key, value):
    """With n = 2 a query has four positives, so a share above 3/4 would silently be 3/4."""
    message = refused(write(changed(key, value)))
    assert "teacher_share" in message and "0.25 to 0.75" in message


def test_an_override_out_of_range(write):
    message = refused(write(tiny_settings()), {"reward_model.lam": 2})
    assert "'reward_model.lam'" in message


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


def attributes_read() -> dict[str, set[str]]:
    """Attribute names that the source reads, by file; `getattr` with a name or an f-string counts."""
    found = {}
    for path in (REPOSITORY / "rdlib").rglob("*.py"):
        if path.name == "profile.py":
            continue
        names = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                names.add(node.attr)
        found[path.name] = names
    return found


def test_every_setting_is_read_somewhere():
    read = set().union(*attributes_read().values())
    by_getattr = {"train", "validation", "test"}  # rdlib.tasks.data reads the sizes of its SPLITS by name
    unread = [f"{section}.{name}" for section, name in schema(Profile) if name not in read | by_getattr]
    assert not unread
    from rdlib.tasks.data import SPLITS

    assert set(SPLITS) == by_getattr


def test_the_sections_of_stages_are_sections_of_the_profile():
    from rdlib.study.opening import SHORTCUTS
    from rdlib.study.specification import STAGES

    sections = {section for spec in STAGES.values() for section in spec.sections}
    assert sections <= set(Profile.model_fields)
    nested = {n for n, f in Profile.model_fields.items() if isinstance(f.annotation, type)}
    methods = {n for n in nested if issubclass(Profile.model_fields[n].annotation, BaseModel)} - {"grid", "hardware"}
    assert sections == methods, "a section that no stage names would change results without changing a key"
    for dotted in SHORTCUTS.values():
        section, name = dotted.split(".")
        assert name in Profile.model_fields[section].annotation.model_fields


def test_a_profile_cannot_be_changed(write):
    profile = load_profile(write(tiny_settings()))
    with pytest.raises(Exception, match="frozen"):
        profile.reward_model.lam = 0.1


def test_sections_refuse_unknown_keys():
    classes = [
        c for c in vars(profile_module).values() if isinstance(c, type) and issubclass(c, profile_module.Section)
    ]
    assert len(classes) > 10
    assert all(c.model_config["extra"] == "forbid" and c.model_config["frozen"] for c in classes)


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
        (
            {"request": {"reasoning_effort": "low"}},
            "unknown key 'teachers.t.request.reasoning_effort': known keys there: body",
        ),
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
