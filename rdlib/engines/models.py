"""Loading models and tokenizers from local folders or the hub, with errors a user can act on."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import torch
from safetensors import safe_open
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from rdlib import numerics
from rdlib.engines import endings, padding, probe, scorers
from rdlib.errors import UserError
from rdlib.settings import Model, Training, Weights
from rdlib.tasks import prompts

numerics.settle()
logging.set_verbosity_error()
logging.disable_progress_bar()  # loading a file is no long work


def resolve(model: Model, root: Path) -> Model:
    """A profile's model with the whole path of its folder, where it is one below `root`; one on the hub as it is."""
    folder = root / model.model
    return model.model_copy(update={"model": str(folder), "revision": None}) if folder.is_dir() else model


def load_tokenizer(source: Model | str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a model, padding on the left, probed (`rdlib.engines.probe`).

    Its end token is the one that its chat template ends a turn with, where there is one; its pad token ends nothing.
    UserError where texts, questions or answers would not reach the model as they are.
    """
    tokenizer, size = _prepared_tokenizer(source)
    probe.check(tokenizer, size, _name(source))
    return tokenizer


def vocabulary(source: Model | str | Path) -> dict[str, int]:
    """The tokens of a model and their numbers, whether or not its embedding has rows for all of them."""
    return padding.own_tokens(_prepared_tokenizer(source)[0])


def _prepared_tokenizer(source: Model | str | Path) -> tuple[PreTrainedTokenizerBase, int | None]:
    """The tokenizer with its end and pad tokens, and how many rows the model's embedding has."""
    name, revision = _name(source), getattr(source, "revision", None)
    tokenizer = _load(AutoTokenizer, source, padding_side="left")
    tokenizer = probe.as_in_its_file(tokenizer, name, revision)
    tokenizer.init_kwargs.pop("local_files_only", None)  # HF_HUB_OFFLINE, which is no part of what a stage saves
    probe.show_thinking(tokenizer)
    if isinstance(tokenizer.chat_template, dict):  # several by name, of which the study asks with this one
        tokenizer.chat_template = tokenizer.chat_template.get("default", tokenizer.chat_template)
    if isinstance(source, Model):
        probe.set_options(tokenizer, source)
    size, ends = _size_and_ends(source)
    _set_end(tokenizer, ends, name)
    if not padding.usable(tokenizer.pad_token, tokenizer, {tokenizer.eos_token_id, *ends}, size):
        tokenizer.pad_token = padding.spare(tokenizer, {tokenizer.eos_token_id, *ends}, size, name)
    return tokenizer, size


def _set_end(tokenizer: PreTrainedTokenizerBase, ends: list[int], name: str) -> None:
    """Give a tokenizer the end token of its template, or of the model's settings where it names none itself."""
    if end := prompts.end_of_turn(tokenizer):
        tokenizer.eos_token = end
    elif tokenizer.eos_token_id is None and ends:
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(ends[0])
    if tokenizer.eos_token_id is None:
        raise UserError(f"The tokenizer of {name} has no end token: set eos_token in its tokenizer_config.json.")
    token = tokenizer.added_tokens_decoder.get(tokenizer.eos_token_id)
    if token is not None and not token.special:
        tokenizer.add_special_tokens({"eos_token": str(token)})  # which hides it in decoded texts


def _size_and_ends(source: Model | str | Path) -> tuple[int | None, list[int]]:
    """Rows of a model's embedding and the end tokens in its settings; (None, []) of a tokenizer without a model."""
    if (config := config_of(source)) is None:
        return None, []
    size = getattr(config.get_text_config(decoder=True), "vocab_size", None)
    return size, endings.of_settings(generation_settings(source) or config.get_text_config(decoder=True))


def config_of(source: Model | str | Path) -> PreTrainedConfig | None:
    """The configuration of a model; None where it cannot be read."""
    try:
        return load_config(source)
    except UserError:
        return None


def generation_settings(source: Model | str | Path) -> GenerationConfig | None:
    """The generation settings that a model comes with; None where it has none, as some on the hub."""
    revision = {"revision": source.revision} if isinstance(source, Model) and source.revision else {}
    try:
        return GenerationConfig.from_pretrained(_name(source), **revision)
    except (OSError, ValueError):
        return None


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens that end a response: the tokenizer's, and those of the model's generation settings."""
    return endings.of(model, tokenizer)


def context(config: PreTrainedConfig) -> int | None:
    """Tokens that a model can read at once; None where its configuration sets no limit."""
    text = config.get_text_config(decoder=True)
    return getattr(text, "max_position_embeddings", None) or getattr(text, "max_seq_len", None)


def require_room(limit: int | None, prompt: int, response: int) -> None:
    """UserError unless a prompt and a response of so many tokens fit into a context of `limit` tokens."""
    if limit is not None and prompt + response > limit:
        raise UserError(
            f"A prompt of {prompt} tokens and a response of up to {response} do not fit into the model's context of "
            f"{limit}: lower datasets.*.max_tokens or evaluation.few_shot, or leave long questions out."
        )


def device() -> torch.device:
    """Where this process samples: its GPU, or the CPU where there is none."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


WEIGHTS = {"dtype": torch.float32, "use_safetensors": True}  # never a pickle, which could hold any code


def load_causal_lm(
    source: Model | str | Path, training: Training | None = None, weights: Weights = "float32"
) -> PreTrainedModel:
    """A language model in evaluation mode: held as `weights`, or as the settings of a training say.

    Of its generation settings the tokens alone are left.
    """
    held = _held_for(training) if training is not None else WEIGHTS | {"dtype": dtype_of(weights)}
    model = _load_model(AutoModelForCausalLM, source, **held).eval()
    endings.settle(model)
    return model


def load_config(source: Model | str | Path) -> PreTrainedConfig:
    """The configuration of a model, without its weights."""
    require_whole(source)
    return _load(AutoConfig, source)


def load_scorer(
    source: Model | str | Path, pad_token_id: int | None = None, training: Training | None = None
) -> PreTrainedModel:
    """A model with one linear head on the last token's final embedding (a new head is zero), as `load_causal_lm`.

    The last token is the mask's, see `rdlib.engines.scorers`.
    """
    model = _load_model(scorers.class_for(config_of(source)), source, **_held_for(training), num_labels=1)
    scorers.read_by_mask(model, _name(source))
    if pad_token_id is not None:
        model.config.pad_token_id = pad_token_id
    return model.eval()


def dtype_of(weights: Weights) -> torch.dtype:
    """How weights are held: auto is bfloat16 where this machine computes with it, else float32."""
    if weights == "auto":
        return torch.bfloat16 if numerics.computes_bfloat16() else torch.float32
    return getattr(torch, weights)


def _held_for(training: Training | None) -> dict:
    if training is None:
        return WEIGHTS
    chosen = {} if training.attention is None else {"attn_implementation": training.attention}
    return WEIGHTS | {"dtype": dtype_of(training.weights)} | chosen


def _name(source: Model | str | Path) -> str:
    return source.model if isinstance(source, Model) else str(source)


def _load_model(kind, source: Model | str | Path, **options) -> PreTrainedModel:
    """A model of a class, all of whose weights are in its files; of a scorer, those of its body.

    (transformers fills what is missing with random numbers.)
    """
    require_whole(source)
    model, report = _load(kind, source, **options, output_loading_info=True)
    require_whole(source, model)
    needed = "" if kind is AutoModelForCausalLM else f"{model.base_model_prefix}."
    if missing := sorted(name for name in report["missing_keys"] if name.startswith(needed)):
        raise UserError(
            f"The weights of {_name(source)} lack {missing[0]} ({len(missing)} missing in all), which would be random: "
            f"save the model whole, by save_pretrained, or take another one."
        )
    text = model.config.get_text_config(decoder=True)
    if getattr(text, "output_router_logits", False):
        text.output_router_logits = False  # no loss of the study has a router's part, and sampling fails with it
    return model


def require_whole(source: Model | str | Path, model: PreTrainedModel | None = None) -> None:
    """UserError where a folder, or what was loaded as a `model`, is an adapter, put on its base by transformers."""
    if getattr(model, "_hf_peft_config_loaded", False) or (Path(_name(source)) / "adapter_config.json").is_file():
        raise UserError(
            f"{_name(source)} is an adapter (PEFT), no whole model: merge it into its base (merge_and_unload), save "
            f"that with its tokenizer, and name it in the profile."
        )


def _load(loader, source: Model | str | Path, **options):
    if isinstance(source, Model) and source.revision is not None:
        options["revision"] = source.revision
    try:
        return loader.from_pretrained(_name(source), trust_remote_code=False, **options)
    except Exception as error:  # a missing, cut or foreign file fails in many ways, some of them of other libraries
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise UserError(
            f"The model {_name(source)} cannot be loaded ({reason}): check the path or name in the profile; "
            f"a hub model needs a network, and a gated one a login."
        ) from None


def check_files(source: Model, root: Path) -> None:
    """UserError where a model in a folder below `root` lacks a file of its weights, or has one that was cut.

    Headers tell. A single file, such as a GGUF, is refused too. Files of a model on the hub come whole or not at all.
    """
    folder = root / source.model
    if folder.is_file():
        raise UserError(
            f"{source.model} is a file, where a model is a folder with config.json and .safetensors: convert it, or "
            f"have a server answer with it (docs/servers/llama_cpp.md)."
        )
    if not folder.is_dir():
        return
    index = folder / "model.safetensors.index.json"
    parts = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values() if index.is_file() else ()
    for name in sorted(set(parts)) or ["model.safetensors"]:
        try:
            with safe_open(folder / name, framework="pt"):
                pass
        except Exception as error:  # absent, cut, or of another format
            raise UserError(
                f"The weights of {source.model} cannot be read from {name} ({str(error)[:80]}): fetch or save them "
                f"again, as .safetensors."
            ) from None


def parameter_count(source: str | Path) -> int:
    """Number of parameters in a model folder's safetensors files; UserError when there are none."""
    files = sorted(Path(source).glob("*.safetensors"))
    if not files:
        raise UserError(
            f"{source} holds no .safetensors file, so its parameters can't be counted: give a local folder."
        )
    total = 0
    for file in files:
        with safe_open(file, framework="pt") as content:
            total += sum(math.prod(content.get_slice(name).get_shape()) for name in content.keys())  # noqa: SIM118
    return total
