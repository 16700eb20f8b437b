"""Responses that nobody would want, from extraction to what notebooks and tables show; and that nothing runs code."""

from __future__ import annotations

import json
import re
import time

import nbformat
import pandas as pd
import pytest
from conftest import MODELS, REPOSITORY
from fake_server import prompt_of
from hypothesis import given
from hypothesis import strategies as st
from nbconvert.filters import markdown2html

from rdlib.engines import models
from rdlib.engines.generation import sample_to_disk
from rdlib.engines.replay import ReplayEngine
from rdlib.errors import UserError
from rdlib.evidence import shown, tables
from rdlib.study import notebook
from rdlib.tasks import answers

SCRIPT = "<script>alert(1)</script><img src=x onerror=alert(2)> [click](javascript:alert(3)) \\<b> a|b \\|<i>c</i>"
HOSTILE = {
    "a megabyte": ("x" * 999_990 + " #### 7", "7"),
    "a megabyte of marks": ("#### " * 200_000 + "7", "7"),
    "control characters": ("\0\x07\x1b[2J\x1b]0;title\x07\r\x0b\x0c\x85\u2028\u2029\u202e\x7f\ud800 #### 7", "7"),
    "markup": (f"{SCRIPT} #### 7", "7"),
    "ten thousand answers": ("\n".join(f"The answer is {i}. #### {i}" for i in range(10_000)), "9999"),
}


@pytest.fixture(scope="module")
def responses(tmp_path_factory) -> pd.DataFrame:
    """The hostile responses as a stage keeps them: recorded, served, and read again from its shards."""
    folder = tmp_path_factory.mktemp("hostile")
    records = [{"id": f"q{i}", "text": text} for i, (text, _) in enumerate(HOSTILE.values())]
    (folder / "r.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    plan = pd.DataFrame({"id": [f"q{i}" for i in range(len(HOSTILE))], "temperature": 1.0, "n": 1})
    prompts = {f"q{i}": prompt_of(i) for i in range(len(HOSTILE))}
    return sample_to_disk(ReplayEngine(folder / "r.jsonl"), plan, prompts, folder, 0, 3)


@pytest.mark.parametrize("number", range(len(HOSTILE)), ids=HOSTILE)
def test_an_answer_is_found_in_time(responses, number):
    text, expected = responses["text"][number], list(HOSTILE.values())[number][1]
    for kind in ("number", "text", "math", "choice", "phrase", "expression"):
        started = time.process_time()
        found = answers.extract(text, kind)
        answers.refuses(text)
        assert time.process_time() - started < 1
        assert found == expected or kind not in ("number", "math")


def test_notebooks_show_them_as_text(responses, monkeypatch):
    shown_data = []
    monkeypatch.setattr(notebook, "display", lambda data, raw: shown_data.append(data))
    notebook.show_texts(responses)
    html, plain = shown_data[0]["text/html"], shown_data[0]["text/plain"]
    assert "<script" not in html and "<img" not in html and "&lt;script&gt;" in html
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u202e]", html + plain) and "␛[2J" in html
    assert len(html) < 3 * shown.LONGEST * len(HOSTILE) and "more characters]" in html
    cell = nbformat.v4.new_code_cell(outputs=[nbformat.v4.new_output("display_data", shown_data[0])])
    nbformat.validate(nbformat.v4.new_notebook(cells=[cell]))


def test_written_tables_show_them_as_text(responses, tmp_path):
    """A table is read as Markdown in the notebook and on a repository's page; tests/test_site.py reads the site's."""
    path = tables.write_markdown(responses[["id", "text"]], tmp_path / "t.md", "T")
    lines = path.read_text().split("\n")
    assert len(lines) == 4 + len(HOSTILE) + 1  # a row each: no response ends its line
    html = markdown2html(path.read_text())
    assert not re.search(r"<(script|img|b>|i>)", html) and "javascript:alert(3)" in html
    assert not re.search(r"href=.javascript", html)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u202e]", html)


@given(st.text())
def test_a_cell_reads_as_the_text_that_was_written(text):
    cell = shown.in_markdown(text)
    assert "\n" not in cell and not re.search(r"(?<!\\)\||<[A-Za-z/!?]", cell.replace("\\\\", "").replace("\\<", ""))
    assert shown.from_markdown(cell) == shown.visible(text).replace("\n", " ").strip()


# ---- nothing that was read is run

SOURCES = [*(REPOSITORY / "rdlib").rglob("*.py"), *(REPOSITORY / "scripts").glob("*.py")]
SOURCES += (REPOSITORY / "notebooks").glob("*.ipynb")
# What in a program could run what a file or a model says
DANGERS = re.compile(
    r"(?<![\w.])(?:eval|exec|compile|__import__)\(|\.(?:read_pickle|to_pickle|unsafe_load|full_load|load_all)\("
    r"|^\s*(?:from|import) (?:pickle|cPickle|dill|cloudpickle|joblib|shelve|marshal)\b"
    r"|\btorch\.load\((?![^)]*weights_only=True)|\byaml\.load\((?![^)]*_Loader\))"
    r"|\b(?:trust_remote_code|allow_pickle|shell)=(?!False)|\bsafe_serialization=(?!True)",
    re.MULTILINE,
)


def test_no_module_and_no_notebook_runs_what_it_reads():
    bad = (
        "import pickle\nfrom joblib import load\neval(x)\npd.read_pickle(p)\ntorch.load(p)\nyaml.load(t, yaml.Loader)\n"
    )
    bad += "AutoModel.from_pretrained(p, trust_remote_code=True)\nnp.load(p, allow_pickle=True)\nyaml.unsafe_load(t)\n"
    good = "model.eval()\nre.compile(x)\ntorch.load(p, weights_only=True)\nyaml.safe_load(t)"
    assert len(DANGERS.findall(bad)) == 9 and not DANGERS.search(good)
    found = {path.name: DANGERS.findall(path.read_text(encoding="utf-8").replace('"', "\n")) for path in SOURCES}
    assert not {name: dangers for name, dangers in found.items() if dangers} and len(found) > 50


@pytest.mark.parametrize("load", [models.load_causal_lm, models.load_scorer])
def test_weights_in_a_pickle_and_code_beside_a_model_are_refused(tmp_path, load):
    import torch

    content = json.loads((MODELS / "small/config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(content))
    torch.save(models.load_causal_lm(MODELS / "small").state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match="cannot be loaded .*safetensors"):
        load(tmp_path)
    ran = tmp_path / "ran"
    (tmp_path / "own.py").write_text(f"open({str(ran)!r}, 'w')\nclass Own: pass\n")
    own = {"auto_map": {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own"}, "model_type": "own"}
    (tmp_path / "config.json").write_text(json.dumps(content | own))
    with pytest.raises(UserError, match="cannot be loaded"):
        load(tmp_path)
    assert not ran.exists()
