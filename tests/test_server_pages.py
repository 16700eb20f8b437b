"""The pages of docs/servers: every block is a teacher that a profile takes, and what a page says of it is so."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest
import yaml
from conftest import REPOSITORY

from rdlib.engines import server, server_address
from rdlib.engines.asking import Settings
from rdlib.engines.generation import Request
from rdlib.engines.server_parameters import Learnt, body_of, neutral
from rdlib.profile import Profile, load_profile
from rdlib.tasks.prompts import Prompt

PAGES = sorted((REPOSITORY / "docs/servers").glob("*.md"))
SERVERS = [page for page in PAGES if page.name != "index.md"]
PROMPT = Prompt((("user", "What is 7 + 8?"),), "What is 7 + 8?", "q", "What is 7 + 8?")


def blocks(page: Path) -> list[dict]:
    """The blocks of YAML of a page."""
    return [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL)]


def profile_of(block: dict, tmp_path: Path) -> Profile:
    """`params/own_questions.yaml` with the sections of a block in the place of its own."""
    content = yaml.safe_load((REPOSITORY / "params/own_questions.yaml").read_text()) | block
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content))
    return load_profile(tmp_path / "mine.yaml")


CASES = [(page, number) for page in SERVERS for number in range(len(blocks(page)))]
each_block = pytest.mark.parametrize("page, number", CASES, ids=[f"{page.stem}-{n}" for page, n in CASES])


@each_block
def test_every_block_is_a_teacher_of_a_profile(page, number, tmp_path):
    profile = profile_of(blocks(page)[number], tmp_path)
    (model,) = profile.teachers.values()
    assert model.engine == "openai" and server_address.checked_url(model.base_url).host
    heats = [temperature for _, temperature, _ in profile.teacher_sampling.sets]
    assert "temperature" not in model.leave_out or heats == [None]
    body = body_of(model, Settings(model.model, 99), Request(PROMPT, 4, heats[0]), 4, 1, Learnt())
    assert model.request.body.items() <= body.items() and not set(model.leave_out) & body.keys()


@each_block
def test_a_block_has_no_key_but_the_name_of_a_variable(page, number, tmp_path, monkeypatch):
    profile = profile_of(blocks(page)[number], tmp_path)
    (model,) = profile.teachers.values()
    monkeypatch.setenv(model.api_key_env, "sk-secret-0123456789")
    headers, secrets = server_address.headers_of(model, server.key_of(model))
    assert "sk-secret-0123456789" in secrets and any("sk-secret" in value for value in headers.values())
    assert "sk-" not in page.read_text()


def test_every_server_has_a_page_a_block_and_a_line_of_the_table():
    table = re.findall(r"^\| \[.*?\]\((\w+\.md)\)", (REPOSITORY / "docs/servers/index.md").read_text(), re.MULTILINE)
    assert sorted(table) == [page.name for page in SERVERS] and all(blocks(page) for page in SERVERS)
    assert all("Tested with" in page.read_text() and "](index.md)" in page.read_text() for page in SERVERS)


@pytest.mark.parametrize("page, temperature", [("openai", None), ("deepseek", None), ("anthropic", 0.3)])
def test_what_is_sent_of_temperature(page, temperature, tmp_path):
    """What thinks is sampled at its own temperature; Anthropic cuts higher ones off at 1 without a word."""
    block = blocks(REPOSITORY / f"docs/servers/{page}.md")[0 if temperature else 1]
    heats = [heat for _, heat, _ in profile_of(block, tmp_path).teacher_sampling.sets]
    assert heats == [None] if temperature is None else max(heats) <= 1 and temperature in heats


def test_azures_version_stays_at_the_end():
    page = (REPOSITORY / "docs/servers/openai.md").read_text()
    (address,) = re.findall(r"`(https://[^`]*api-version[^`]*)`", page)
    found = server_address.under(server_address.checked_url(address), "/chat/completions")
    assert httpx.URL(found).path.endswith("/my-deployment/chat/completions") and found.endswith(
        "?api-version=2024-10-21"
    )


@pytest.mark.parametrize("page, name", [("llama_cpp", "llama.cpp"), ("vllm", "vLLM"), ("ollama", "Ollama")])
def test_the_neutral_values_are_those_that_the_page_names(page, name, tmp_path):
    text = (REPOSITORY / f"docs/servers/{page}.md").read_text()
    (model,) = profile_of(blocks(REPOSITORY / f"docs/servers/{page}.md")[0], tmp_path).teachers.values()
    sent = neutral(model, Learnt(server=name))
    assert bool(sent) == (name != "Ollama")
    for field, value in sent.items():
        assert f"`{field}` {value:g}" in text or field in ("presence_penalty", "frequency_penalty", "repeat_penalty")
