"""Rollouts of PPO by vLLM: samples from a policy in training, whose weights are sent to vLLM before every rollout.

    rollouts = PolicyEngine(policy, tokenizer, max_tokens)            # vLLM inside each training process
    rollouts = PolicyServer(url, policy, tokenizer, max_tokens)       # one server for all of them
    tokens, logprobs = rollouts.rollouts(policy, prompts, temperature, seed)

Weights travel by code of vLLM and TRL: within a process vLLM's `reload_weights` takes them tensor by tensor; a server
reads them from a file by the same call, or gets them from TRL's client over NCCL where it was started for that. So
vLLM starts without weights, from the model's shape alone.

vLLM 0.31.0 does not update a tied output layer when weights are reloaded (on a CPU it keeps the old one, and only
logs a warning), so here the output layer is never tied to the embedding.
"""

from __future__ import annotations

import contextlib
import copy
import fcntl
import gc
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path
from typing import Any

import httpx
import torch
from accelerate import PartialState
from accelerate.utils import DistributedType
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from rdlib.engines import models
from rdlib.engines.generation import Request, derive_seed
from rdlib.engines.vllm_engine import VllmEngine, first_line, require_vllm
from rdlib.errors import UserError
from rdlib.settings import Model, Vllm

Rollouts = tuple[list[list[int]], list[list[float]]]  # token ids of each response, and their log-probabilities
AT_ONCE = 64  # requests of one process to a server; TRL's client keeps as many connections
SECONDS_TO_ANSWER = 10.0
UNTIL_EXIT: list[Any] = []  # stopped engines in a group of processes
DISCARD = 2  # the level of vLLM's sleep that keeps neither weights nor cache


class PolicyEngine(VllmEngine):
    """vLLM in the policy's own process; where there are several, each has its own, on the process's GPU.

    With `sleep` it gives its memory back between rollouts, so that the policy is trained where vLLM sampled. vLLM for
    a CPU goes through the same states, and keeps its memory.
    """

    def __init__(
        self,
        policy: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        max_tokens: int,
        settings: Vllm | None = None,
        sleep: bool = True,
    ):
        self.sleeps, self.in_group = sleep, PartialState().distributed_type != DistributedType.NO
        more: dict[str, Any] = {"load_format": "dummy"}
        if sleep and torch.cuda.is_available():
            more["enable_sleep_mode"] = True
        if self.in_group:  # vLLM joins the group of the training processes, and samples in each of them alone
            more["distributed_executor_backend"] = "external_launcher"
        with _shape_on_disk(policy, tokenizer) as folder, _in_this_process():
            super().__init__(Model(model=folder, engine="vllm"), max_tokens, settings=settings, more=more)
        self.source, self.end_tokens = "the policy", models.end_tokens(policy, tokenizer)
        self._sleep()

    def rollouts(
        self, policy: PreTrainedModel, token_prompts: list[list[int]], temperature: float, seed: int
    ) -> Rollouts:
        """One response of `policy` to each prompt, with vLLM's log-probability of each token at this temperature."""
        requests = [Request(prompt, 1, temperature) for prompt in token_prompts]
        with self.awake(policy):
            outputs = self._outputs(requests, seed, logprobs=0)
        samples = [output.outputs[0] for output in outputs]
        tokens = [list(sample.token_ids) for sample in samples]
        given = [[place[t].logprob for place, t in zip(s.logprobs, s.token_ids, strict=True)] for s in samples]
        return tokens, given

    @contextlib.contextmanager
    def awake(self, policy: PreTrainedModel) -> Iterator[None]:
        """A context in which vLLM samples from `policy` as it is now."""
        with torch.autocast(models.device().type, enabled=False):  # training's; vLLM has a precision of its own
            self._load(policy)
            yield
            self._sleep()

    def close(self) -> None:
        """Stop vLLM; the group of the training processes, which would end with vLLM's last reference, stays."""
        if not self.in_group:
            super().close()
        elif self.llm is not None:
            self.llm.llm_engine.model_executor.shutdown()
            UNTIL_EXIT.append(self.llm)
            self.llm = None
            gc.collect()

    def _load(self, policy: PreTrainedModel) -> None:
        try:
            self._wake("weights")
            self.llm.collective_rpc("reload_weights", kwargs={"weights_iterator": merged_weights(policy)})
            self._wake("kv_cache")
            self.llm.reset_prefix_cache()
        except Exception as error:  # of CUDA, above all, where memory runs out
            raise UserError(
                f"vLLM cannot take the policy's weights ({first_line(error)}): where memory is the reason, lower "
                f"generation.vllm.gpu_memory_utilization; the same command resumes from the last checkpoint."
            ) from None

    def _sleep(self) -> None:
        if self.sleeps:
            self.llm.sleep(level=DISCARD)

    def _wake(self, part: str) -> None:
        if self.sleeps:
            torch.cuda.empty_cache()  # what training has freed; nothing without a GPU
            self.llm.wake_up(tags=[part])


class PolicyServer:
    """One vLLM server, started by the user (docs/rollouts.md), that samples for all training processes.

    The main process sends the weights; every process asks for its own prompts, each request with a seed of its own.
    """

    def __init__(self, url: str, policy: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, max_tokens: int):
        require_vllm()
        self.url, self.max_tokens = url.rstrip("/").removesuffix("/v1"), max_tokens
        self.end_tokens = models.end_tokens(policy, tokenizer)
        self.client = _connect(self.url)
        config = _configuration(self.client, self.url)
        require_same_model(config["model_config"], policy.config, self.url)
        self.limit = config["model_config"]["max_model_len"]
        self.by_nccl = config["weight_transfer_config"] is not None
        with contextlib.ExitStack() as held:
            if PartialState().is_main_process:
                held.enter_context(_alone(self.url))
                self._prepare(models.device())
            self.held = held.pop_all()

    def rollouts(
        self, policy: PreTrainedModel, token_prompts: list[list[int]], temperature: float, seed: int
    ) -> Rollouts:
        """One response of `policy` to each prompt, with vLLM's log-probability of each token at this temperature."""
        state = PartialState()
        if state.is_main_process:
            self._send(policy)
        state.wait_for_everyone()
        seeds = [derive_seed(seed, index) >> 1 for index in range(len(token_prompts))]
        with self._failures(), ThreadPoolExecutor(AT_ONCE) as pool:
            given = list(pool.map(self._ask, token_prompts, repeat(temperature), seeds))
        return [tokens for tokens, _ in given], [logprobs for _, logprobs in given]

    def close(self) -> None:
        """End the connection; the server goes on."""
        self.client.close_communicator()
        self.client.session.close()
        self.held.close()

    def _ask(self, prompt: list[int], temperature: float, seed: int) -> tuple[list[int], list[float]]:
        more = {"seed": seed, "stop_token_ids": self.end_tokens}
        given = self.client.generate(
            [prompt], temperature=temperature, max_tokens=self.max_tokens, logprobs=0, generation_kwargs=more
        )
        return given["completion_ids"][0], [place[0] for place in given["logprobs"][0]]

    def _prepare(self, device: torch.device) -> None:
        with self._failures():
            if self.by_nccl:
                self.client.init_communicator(device)
            else:  # a server that was started without weights would go on making them up
                self._call("update_config", overrides={"load_config": {"load_format": "auto"}})

    def _send(self, policy: PreTrainedModel) -> None:
        with self._failures():
            if self.by_nccl:
                named = [(n, str(t.dtype).removeprefix("torch."), list(t.shape)) for n, t in merged_weights(policy)]
                self.client.update_named_params(named, merged_weights(policy))
            else:
                with _weights_on_disk(policy) as folder:
                    self._call("reload_weights", weights_path=folder)
            self.client.reset_prefix_cache()

    def _call(self, method: str, **arguments: Any) -> None:
        """Have every worker of the server call a method of vLLM's."""
        answer = self.client.session.post(f"{self.url}/collective_rpc", json={"method": method, "kwargs": arguments})
        answer.raise_for_status()

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # of requests, of TRL, and of a server that died of anything
            raise UserError(
                f"The vLLM server at {self.url} failed ({first_line(error)}): its own log says why; start it again, "
                f"and the same command resumes from the last checkpoint."
            ) from None


def merged_weights(policy: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    """Name and value of each weight of a policy, LoRA adapters added in, as float32; the policy stays as it is."""
    model = policy.get_base_model() if hasattr(policy, "get_base_model") else policy
    adapted = {name: module for name, module in model.named_modules() if hasattr(module, "get_delta_weight")}
    for name, tensor in model.state_dict().items():
        layer, base, kind = name.partition(".base_layer.")
        if base and kind == "weight":
            changes = [adapted[layer].get_delta_weight(adapter) for adapter in adapted[layer].active_adapters]
            tensor = tensor.float() + sum(change.detach() for change in changes)
        if ".lora_" not in name:
            yield (f"{layer}.{kind}" if base else name), tensor.detach()


# ---- a server


def _connect(url: str) -> Any:
    from trl.generation.vllm_client import VLLMClient

    try:
        httpx.get(f"{url}/health", timeout=SECONDS_TO_ANSWER).raise_for_status()  # TRL would wait for ever
        return VLLMClient(base_url=url)
    except Exception as error:  # of httpx, requests, and of TRL where something else answers
        raise UserError(
            f"No vLLM server answers at ppo.sampler_server {url} ({first_line(error)}): start one as docs/rollouts.md "
            f"says, or leave the setting out for an engine in each training process."
        ) from None


@contextlib.contextmanager
def _alone(url: str) -> Iterator[None]:
    """A context in which this training is the one that a server samples for; UserError where it is another.

    Holds among one user's trainings on one machine. The lock ends with the process, however that ends.
    """
    name = hashlib.sha256(f"{os.getuid()} {url}".encode()).hexdigest()[:16]
    with Path(tempfile.gettempdir(), f"rdlib-vllm-{name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"The vLLM server at {url} samples for another PPO run, whose weights it holds: start one for each "
                f"run, or let the runs follow each other (JOBS=1)."
            ) from None
        yield


def _configuration(client: Any, url: str) -> dict[str, Any]:
    try:
        return client.get_server_info()
    except Exception as error:
        raise UserError(
            f"The vLLM server at {url} tells nothing of itself ({first_line(error)}): start it as docs/rollouts.md "
            f"says, with VLLM_SERVER_DEV_MODE=1."
        ) from None


def require_same_model(served: dict[str, Any], config: PreTrainedConfig, url: str) -> None:
    """UserError unless a server's model takes the weights of a policy, and tells the log-probabilities it samples by.

    `served` is the server's `model_config`, as its /server_info gives it.
    """
    try:
        theirs = models.load_config(Model(model=served["model"], revision=served.get("revision")))
    except UserError:
        raise UserError(
            f"The vLLM server at {url} holds {served['model']}, which cannot be read from here: start it with the "
            f"student's name on the hub, or the whole path of its folder."
        ) from None
    for name, value in (served["hf_overrides"] or {}).items():
        setattr(theirs, name, value)
    if _shapes(theirs) != _shapes(config):
        raise UserError(
            f"The vLLM server at {url} holds {served['model']}, whose weights have other names or shapes than the "
            f"policy's: start it with the student of this study, as docs/rollouts.md says."
        )
    if theirs.tie_word_embeddings:
        raise UserError(
            f"The vLLM server at {url} ties the output layer of {served['model']} to its embedding, which vLLM does "
            f"not update: start it with --load-format dummy --hf-overrides '{{\"tie_word_embeddings\": false}}'."
        )
    if served["logprobs_mode"] != "processed_logprobs":
        raise UserError(
            f"The vLLM server at {url} tells log-probabilities of another temperature than it samples at: start it "
            f"with --logprobs-mode processed_logprobs."
        )


def _shapes(config: PreTrainedConfig) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return {name: tuple(t.shape) for name, t in AutoModelForCausalLM.from_config(config).state_dict().items()}


# ---- files and surroundings


@contextlib.contextmanager
def _shape_on_disk(policy: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Iterator[str]:
    """A folder with a policy's configuration, its output layer apart, and its tokenizer."""
    config = copy.deepcopy(policy.config)
    config.tie_word_embeddings = False
    with tempfile.TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        yield folder


@contextlib.contextmanager
def _weights_on_disk(policy: PreTrainedModel) -> Iterator[str]:
    """A folder with the policy's weights, in memory that looks like a folder where there is enough of it."""
    weights = {name: tensor.cpu().clone() for name, tensor in merged_weights(policy)}
    size, memory = sum(tensor.nbytes for tensor in weights.values()), Path("/dev/shm")
    fits = memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 2 * size
    with tempfile.TemporaryDirectory(dir=memory if fits else None) as folder:
        save_file(weights, Path(folder, "model.safetensors"), metadata={"format": "pt"})
        yield folder


@contextlib.contextmanager
def _in_this_process() -> Iterator[None]:
    """A context in which vLLM starts in this process, where the weights are, and not in one of its own."""
    name = "VLLM_ENABLE_V1_MULTIPROCESSING"
    before = os.environ.get(name)
    os.environ[name] = "0"
    try:
        yield
    finally:
        os.environ.pop(name) if before is None else os.environ.update({name: before})
