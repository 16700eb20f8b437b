"""A real llama.cpp server as teacher of own questions, from stage 00 to 02: `make check KIND=llama`.

Qwen2.5-Coder-0.5B-Instruct answers twelve questions. The server is killed half way, which ends the study in one
sentence with all that came kept, and is started again; the same command goes on and asks nothing twice. What was sent
is seen by a small proxy between the two. The teacher is set as docs/servers/llama_cpp.md says.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import httpx
import pandas as pd
import pytest
import yaml
from fake_server import Listening, send

from rdlib.engines import server
from rdlib.engines.asking import Settings
from rdlib.engines.generation import Request
from rdlib.engines.store import Store
from rdlib.settings import Model
from rdlib.tasks.prompts import Prompt

REPOSITORY = Path(__file__).resolve().parents[2]
MODEL = REPOSITORY / ".real/qwen2.5-coder-0.5b-instruct-q4.gguf"
PYTHON = REPOSITORY / ".venv-llama/bin/python"
PAGE = REPOSITORY / "docs/servers/llama_cpp.md"
NAME = "qwen2.5-coder-0.5b"
QUESTIONS = [f"What is {7 * k % 19 + 2} + {5 * k % 17 + 3}?" for k in range(12)]
SLOTS, KILLED_AFTER, LONGEST_START = 4, 12, 300  # samples a request; answered requests; seconds
NEUTRAL = {"top_k": 0, "min_p": 0.0, "typical_p": 1.0, "repeat_penalty": 1.0}
DATA = ("00_data", "01_teacher_responses", "02_pseudo_labels")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Llama:
    """The server, behind a proxy that counts what is asked; both are there or gone together, at the same address."""

    def __init__(self, folder: Path):
        self.port, self.inner = free_port(), free_port()
        self.url, self.log = f"http://127.0.0.1:{self.port}/v1", folder / "llama.log"
        self.bodies: list[dict] = []
        self.answered, self.kill_after = 0, None
        self.lock = threading.Lock()

    def start(self) -> None:
        """Start both and wait until the model is loaded."""
        words = [MODEL, "--alias", NAME, "--port", self.inner, "--parallel", SLOTS, "--ctx-size", 4096]
        command = [str(word) for word in (PYTHON, REPOSITORY / "scripts/llama_server.py", *words)]
        with self.log.open("a") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        deadline = time.time() + LONGEST_START
        while not self._is_ready():
            assert self.process.poll() is None and time.time() < deadline, self.log.read_text()[-3000:]
            time.sleep(0.5)
        self.proxy = Listening(self.pass_on, self.port)

    def _is_ready(self) -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{self.inner}/health", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    def pass_on(self, handler, method: str) -> None:
        """Hand a request to the server, and what it says back; kill it after so many answers."""
        content = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        url = f"http://127.0.0.1:{self.inner}{handler.path}"
        try:
            came = httpx.request(method, url, content=content, timeout=600)
        except httpx.HTTPError:
            handler.close_connection = True
            return
        dies = False
        if content and came.status_code == 200:
            with self.lock:
                self.bodies.append(json.loads(content))
                self.answered += 1
                dies = self.answered == self.kill_after
        send(handler, came.status_code, {"Server": came.headers.get("Server", "")}, came.content)
        if dies:
            self.kill()

    def kill(self) -> None:
        """End both at once, as a power failure would."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(30)
            self.proxy.close()


def teacher_of_the_page() -> dict:
    """The teacher as the page of this server has it."""
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return yaml.safe_load(block)["teachers"]["teacher"]


def settings(folder: Path, url: str) -> dict:
    """`params/own_questions.yaml` with the page's teacher at this address and these questions, made small."""
    content = yaml.safe_load((REPOSITORY / "params/own_questions.yaml").read_text())
    content["teachers"] = {"teacher": teacher_of_the_page() | {"base_url": url, "attempts": 3, "first_look": 4}}
    content["datasets"]["mine"] |= {"path": str(folder / "questions.jsonl"), "answer": "math", "max_tokens": 24}
    content["datasets"]["mine"] |= {"validation": 2, "test": 2}
    content["teacher_sampling"] = {"high_temperatures": [0.0, 0.3], "low_temperatures": [1.5]}
    content["teacher_sampling"] |= {"samples_per_temperature": SLOTS}
    (folder / "questions.jsonl").write_text("".join(json.dumps({"question": q}) + "\n" for q in QUESTIONS))
    return content | {"name": "llama", "runs": str(folder / "runs"), "voting": {"threshold": 0.3}}


def run(profile: Path, name: str, output: Path) -> subprocess.CompletedProcess:
    """One notebook by its command."""
    parameters = {"profile": str(profile), "dataset": "mine", "seed": 0} | (
        {} if name == "00_data" else {"teacher": "teacher"}
    )
    notebook = REPOSITORY / "notebooks" / f"{name}.ipynb"
    command = [sys.executable, "-m", "rdlib", "execute", notebook, output / f"{name}.ipynb", json.dumps(parameters)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    words = [str(word) for word in command]
    return subprocess.run(words, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=1800)


def kept(folder: Path) -> pd.DataFrame:
    """What is in the study's store."""
    with Store.open(folder / "responses/llama.sqlite", create=False) as store:
        return pd.read_sql(
            "SELECT hex(asked) AS asked, sample, kind, temperature, text FROM responses JOIN asked ON digest = asked",
            store.connection,
        )


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    assert PYTHON.exists() and MODEL.exists(), (
        "The server or its model is missing: `make check KIND=llama` fetches them."
    )
    found = Llama(tmp_path_factory.mktemp("server"))
    found.start()
    yield found
    found.kill()


@pytest.fixture(scope="module")
def story(llama, tmp_path_factory):
    """What happened, by name; every step says how long it took."""
    folder = tmp_path_factory.mktemp("study")
    profile, told, clock = folder / "llama.yaml", {"folder": folder}, time.time()
    profile.write_text(yaml.safe_dump(settings(folder, llama.url)))

    def step(name: str) -> None:
        nonlocal clock
        print(f"{name}: {time.time() - clock:.0f} s, {llama.answered} requests answered", flush=True)
        clock = time.time()

    assert run(profile, "00_data", folder).returncode == 0
    step("00_data")
    llama.kill_after = KILLED_AFTER
    told["killed"] = run(profile, "01_teacher_responses", folder)
    step("01_teacher_responses, killed")
    told["kept then"], told["bodies then"] = kept(folder), list(llama.bodies)
    llama.kill_after = None
    llama.start()
    step("started again")
    told["went on"] = run(profile, "01_teacher_responses", folder)
    step("01_teacher_responses")
    told["kept"], told["bodies"] = kept(folder), list(llama.bodies)
    told["labels"] = run(profile, "02_pseudo_labels", folder)
    step("02_pseudo_labels")
    return told


def test_a_killed_server_ends_the_notebook_in_one_sentence(story):
    killed = story["killed"]
    said = [line for line in killed.stderr.splitlines() if "[IPKernelApp]" not in line]  # the kernel's own
    assert killed.returncode == 2 and len(said) == 1, killed.stderr
    assert re.match(r"error: The server .* failed \d times in a row, .* is kept", said[0])
    assert story["kept then"]["asked"].nunique() >= KILLED_AFTER - 1  # the last answer may have been on its way


def test_the_same_command_goes_on_and_asks_nothing_twice(story):
    assert story["went on"].returncode == 0, story["went on"].stderr
    frame = story["kept"]
    assert (frame["kind"] == "answer").all() and not frame.duplicated(["asked", "sample"]).any()
    assert len(frame) == 10 * (1 + 4 + 4) + 2 * (1 + 4)
    told = [json.dumps([body["messages"], body["temperature"]]) for body in story["bodies"]]
    assert len(told) - len(set(told)) <= 1  # what was on its way when the server died
    assert len(set(told)) == frame["asked"].nunique() == 34


def test_the_labels_are_those_of_the_vote(story):
    assert story["labels"].returncode == 0, story["labels"].stderr
    (path,) = story["folder"].rglob("02_pseudo_labels/labels.parquet")
    labels = pd.read_parquet(path)
    assert len(labels) == 10 and labels["pseudo_label"].notna().sum() >= 5


def test_what_changes_nothing_was_sent(story):
    for body in story["bodies"]:
        assert NEUTRAL.items() <= body.items() and body["top_p"] == 1.0 and body["model"] == NAME
        assert body.get("n", 1) == (1 if body["temperature"] == 0 else SLOTS)
    assert "server is llama.cpp, and top_k 0, min_p 0" in (story["folder"] / "01_teacher_responses.ipynb").read_text()


def colours(llama: Llama, body: dict) -> int:
    """Distinct texts of twenty-four hot samples of one short answer, with extra fields in the request."""
    model = Model(model=NAME, engine="openai", base_url=llama.url, concurrency=1, request={"body": body})
    question = "Name one colour. Answer with one word."
    request = Request(Prompt((("user", question),), question, "q", question), SLOTS, 1.5)
    with closing(server.ServerEngine(model, Settings(NAME, 6))) as engine:
        texts = [c.text for seed in range(6) for c in engine.generate([request], seed)[0]]
    return len(set(texts))


def test_the_server_s_own_defaults_would_have_made_equal_texts(llama, story):
    mine, its = colours(llama, {}), colours(llama, {"top_k": 40, "min_p": 0.05})
    print(f"distinct texts of 24 at temperature 1.5: {mine} with the neutral values, {its} with the server's own")
    assert mine > its


def test_any_name_is_served(llama, story):
    with closing(server.ServerEngine(Model(model="qwen:any", base_url=llama.url), Settings("qwen:any", 4))) as engine:
        engine.check()
