"""What a change runs again, and what it does not: settings, data, models and code, one kind of change at a time."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml
from conftest import PARAMS, REPOSITORY, copy_study, make_root, stage_in, tiny_settings
from test_study import OURS

from rdlib.errors import UserError
from rdlib.study import specification
from rdlib.study.jobs import Job, drop_stale_markers
from rdlib.study.specification import STAGES
from rdlib.study.stage import Stage

FIGURES = "12_paper_tables_and_figures"  # drawn again after any stage that ran; here: even where none did
EVERYTHING = {*OURS, FIGURES}


def from_stage(name: str) -> set[str]:
    """A stage of OURS, those after it, and the figures."""
    return {*OURS[OURS.index(name) :], FIGURES}


@pytest.fixture
def code(tmp_path, monkeypatch):
    """A copy of rdlib that the keys go by, to be changed."""
    copy = tmp_path / "code" / "rdlib"
    shutil.copytree(REPOSITORY / "rdlib", copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(specification, "PACKAGE", copy)
    forget()
    yield copy
    forget()


def forget() -> None:
    """Have the code read again, as a new process does."""
    for function in (specification.code_of, specification._module, specification._path):
        function.cache_clear()


@pytest.fixture
def finished(study, tmp_path, at_root, code) -> Path:
    """The root of a finished study, with models of its own to change."""
    root = copy_study(study, tmp_path / "root")
    (root / "models").unlink()
    for name in ("strong", "weak", "large", "small"):
        shutil.copytree(REPOSITORY / "models" / name, root / "models" / name)
    return at_root(root)


def stage_of(root: Path, name: str) -> Stage:
    return stage_in(root, name, "ours_wo_r" if name == "03_sft_warmup" else "ours")


def figures_marker(root: Path) -> Path:
    return Job(FIGURES, {"profile": PARAMS, "seeds": [0]}, root, []).marker(root / "runs")


def setting(section: str, **values):
    """A change of a section of the profile."""

    def change(root: Path, code: Path) -> None:
        content = yaml.safe_load((root / PARAMS).read_text())
        content[section] = content.get(section, {}) | values
        (root / PARAMS).write_text(yaml.safe_dump(content))

    return change


def in_module(name: str, old: str = "", new: str = "\nANOTHER = 1\n"):
    """A change of a module's text, or by what is written below it."""

    def change(root: Path, code: Path) -> None:
        text = (code / name).read_text()
        assert old in text
        (code / name).write_text(text.replace(old, new, 1) if old else text + new)

    return change


def other_weights(root: Path, code: Path) -> None:
    shutil.copy(root / "models/large/model.safetensors", root / "models/small/model.safetensors")


def commented(root: Path, code: Path) -> None:
    in_module("method/labelled_positions.py", "without loss", "that is not learnt")(root, code)
    in_module("method/voting.py", '"""The most frequent answer', '"""An answer')(root, code)


CHANGES = {
    "lambda": (setting("reward_model", lam=0.3), from_stage("05_reward_model")),
    "questions": (setting("datasets", gsm=tiny_settings()["datasets"]["gsm"] | {"train": 17}), EVERYTHING),
    "passes of a batch": (setting("training", gradient_accumulation=2), {FIGURES}),  # which show every setting
    "weights of the student": (other_weights, from_stage("03_sft_warmup") - {FIGURES}),
    "README": (lambda root, code: (root / "README.md").write_text("Another word."), set()),
    "a comment and a docstring": (commented, set()),
    "code of the reward model": (in_module("method/reward_model.py"), from_stage("05_reward_model") - {FIGURES}),
    "code of the vote": (in_module("method/voting.py"), from_stage("02_pseudo_labels")),
    "code of the prompts": (in_module("tasks/prompts.py"), EVERYTHING - {"00_data", "00_gold"}),
    "code of the micro world": (in_module("micro/gsm.py"), EVERYTHING),  # figures too: it tells which were perturbed
    "code of plots": (in_module("evidence/plots.py"), {FIGURES}),
    "code of the DAG": (in_module("study/dag.py"), set()),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_a_change_runs_what_depends_on_it_and_no_other(finished, code, kind):
    change, expected = CHANGES[kind]
    assert all(stage_of(finished, name).done for name in OURS)
    before = figures_marker(finished)
    change(finished, code)
    forget()
    undone = {name for name in OURS if not stage_of(finished, name).done}
    assert undone | ({FIGURES} if figures_marker(finished) != before else set()) == expected


@pytest.mark.parametrize(("change", "after"), [({"threshold": 0.701}, len(OURS)), ({"flip_share": 0.5}, 4)])
def test_a_stage_with_another_key_runs_what_follows_only_where_its_content_differs(finished, code, change, after):
    setting("voting", **change)(finished, code)
    assert {name for name in OURS if not stage_of(finished, name).done} == set(OURS[3:])
    before = stage_of(finished, "02_pseudo_labels").folder / "manifest.json"
    old = before.read_text()
    stage_of(finished, "02_pseudo_labels").run()
    assert before.read_text() != old
    assert {name for name in OURS if not stage_of(finished, name).done} == set(OURS[after:])


def test_figures_drawn_by_another_code_since_are_drawn_again(finished, code):
    runs, job = finished / "runs", Job(FIGURES, {"profile": PARAMS, "seeds": [0]}, finished, [])
    first, module = job.marker(runs), code / "evidence/plots.py"
    first.parent.mkdir()
    first.touch()
    text = module.read_text()
    for now in (text + "\nANOTHER = 1\n", text):
        module.write_text(now)
        forget()
        assert (job.marker(runs) == first) == (now == text)
        assert drop_stale_markers([job], runs) == 0 and not first.exists()


# ---- the code's identity


def test_every_stage_uses_its_own_module_and_no_orchestration():
    for spec in STAGES.values():
        used = specification.reached(spec.function.partition(":")[0])
        assert spec.function.partition(":")[0] in used
        assert not used & specification.ORCHESTRATION


def test_stages_do_not_use_each_others_code_without_need():
    used = {name: specification.reached(spec.function.partition(":")[0]) for name, spec in STAGES.items()}
    assert used["02_pseudo_labels"] == {"rdlib.method.voting", "rdlib.tasks.questions", "rdlib.streams"}
    others = {f"rdlib.method.{name}" for name in ("teacher", "student", "sft", "rl", "evaluate")} | {"rdlib.tasks.data"}
    for stage in ("01_teacher_responses", "03_sft_warmup", "04_student_responses", "05_reward_model", "06_ppo"):
        assert len(used[stage] & others) <= 1, stage


def test_imports_are_found_wherever_they_stand(code):
    (code / "a.py").write_text('"""Doc."""\nimport os\nfrom rdlib import b as other, errors\nimport rdlib.c\n')
    (code / "b.py").write_text("def f():\n    from rdlib.micro import gsm\n")
    (code / "c.py").write_text("from rdlib.b import f\n")
    assert specification.reached("rdlib.a") >= {"rdlib.a", "rdlib.b", "rdlib.c", "rdlib.micro.gsm"}
    assert "rdlib.errors" not in specification.reached("rdlib.a")
    (code / "broken.py").write_text("def f(:\n")
    for name in ("rdlib.broken", "rdlib.absent"):
        with pytest.raises(UserError, match=f"The code of {name} cannot be read"):
            specification.code_of(name)


def test_a_recipe_does_not_depend_on_the_place(tmp_path):
    one, other = (stage_in(make_root(tmp_path / name), "06_ppo").recipe for name in ("one", "other"))
    assert one == other
