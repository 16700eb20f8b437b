"""PPO with adapters on one base: policy, reference, value and reward model hold the same frozen weights once.

The reward model's stage saves its adapter and head beside the merged model, with the identity of the weights that they
were trained on:

    adapter/adapter_config.json, adapter_model.safetensors      as PEFT has them
    adapter/base.json                                           `identity` of the base

PPO's networks are twins (`rdlib.engines.scorers.twin`): modules of their own on the very tensors of the policy's base,

    policy          base + its adapter, which is trained
    reference       the policy with its adapter off
    reward model    base + the reward model's adapter and head
    value model     base + the reward model's adapter + an adapter and a head of its own, which are trained

so no adapter is switched while one of them computes. A reward model of another base, such as another student's, is
loaded merged, as a body that it and the value model share.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from rdlib import artifacts
from rdlib.engines import models, scorers
from rdlib.method import scoring, training
from rdlib.settings import Training

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel

FOLDER, CONFIG, WEIGHTS, BASE = "adapter", "adapter_config.json", "adapter_model.safetensors", "base.json"
PREFIX = "base_model.model."  # of the names in PEFT's files
REWARD, VALUE = "reward_model", "value_model"  # adapters in a value model


@dataclass(frozen=True)
class Adapter:
    """A reward model's adapter and head: tensors by PEFT's names, and the `identity` of what they were trained on."""

    config: LoraConfig
    tensors: dict[str, Tensor]
    base: str

    @property
    def head(self) -> dict[str, Tensor]:
        """The head's tensors by its own names."""
        start = f"{PREFIX}score."
        return {name.removeprefix(start): tensor for name, tensor in self.tensors.items() if name.startswith(start)}


def identity(model: PreTrainedModel) -> str:
    """SHA-256 of the weights of a model's body, as they are held, by name; adapters are left out."""
    body = getattr(model, model.base_model_prefix)
    weights = {name.replace(".base_layer", ""): p for name, p in body.named_parameters() if "lora_" not in name}
    digest = hashlib.sha256()
    for name, weight in sorted(weights.items()):
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}\n".encode())
        digest.update(weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def save(model: PeftModel, folder: Path) -> None:
    """Write adapter and head of a reward model in training into `folder`/adapter."""
    from peft import get_peft_model_state_dict

    config = model.peft_config[model.active_adapter].to_dict()
    config |= {"base_model_name_or_path": None, "inference_mode": True}  # a path of this machine; base.json has it
    tensors = {name: t.detach().cpu().contiguous() for name, t in get_peft_model_state_dict(model).items()}
    place = folder / FOLDER
    place.mkdir(parents=True, exist_ok=True)
    plain = {name: sorted(value) if isinstance(value, set) else value for name, value in config.items()}
    artifacts.write_json(place / CONFIG, plain)
    save_file(tensors, place / WEIGHTS, metadata={"format": "pt"})
    artifacts.write_json(place / BASE, {"sha256": identity(model.get_base_model())})


def read(folder: Path) -> Adapter | None:
    """What `save` wrote; None where there is none: all weights were trained, or split over processes."""
    from peft import LoraConfig

    place = folder / FOLDER
    if not (place / BASE).is_file():
        return None
    base = json.loads((place / BASE).read_text(encoding="utf-8"))["sha256"]
    return Adapter(LoraConfig.from_pretrained(str(place)), load_file(place / WEIGHTS), base)


# ---- PPO's networks


@dataclass(frozen=True)
class Start:
    """What reward and value model begin with: a scorer whose weights both hold, and its adapter if it is not merged."""

    scorer: PreTrainedModel
    adapter: Adapter | None


def starts(shell: PreTrainedModel | None, scorer: Path, pad: int, settings: Training) -> list[Start]:
    """A start of each reward model in the folder of their stage.

    On the body of `shell` (None: there is none) where a reward model was trained on that, else on one of its own.
    """
    found, base = [], None
    for folder in scoring.member_folders(scorer):
        adapter = read(folder)
        if shell is not None and adapter is not None:
            base = base or identity(shell)
            if adapter.base == base:
                found.append(Start(_with_head(shell, adapter), adapter))
                continue
        if training.is_main():
            print(f"PPO holds {folder.name} as a body of its own, since it is no adapter of the policy's weights.")
        found.append(Start(models.load_scorer(folder / "model", pad, settings), None))
    return found


def reward_model(found: list[Start]) -> PreTrainedModel | scoring.MeanScorer:
    """The reward model, frozen, or the mean of several."""
    members = []
    for start in found:
        member = scorers.twin(start.scorer)
        if start.adapter is not None:
            _put(member, start.adapter)
            member.score = deepcopy(member.score).to(start.scorer.dtype)  # as the body's states are
        members.append(member.requires_grad_(False).eval())
    return scoring.MeanScorer(members) if len(members) > 1 else members[0]


def value_model(start: Start, settings: Training, scale: float | None = 1.0) -> PreTrainedModel:
    """The reward model with a new adapter, which changes nothing yet, and a head over `scale` (None: of zeros).

    Trained are these two, in float32, and nothing else.
    """
    from peft import inject_adapter_in_model
    from peft.tuners.tuners_utils import BaseTunerLayer

    model = scorers.twin(start.scorer)
    model.score = deepcopy(model.score).float()
    with torch.no_grad():
        model.score.weight.zero_() if scale is None else model.score.weight.div_(scale)
    inject_adapter_in_model(_adapters_alone(training.lora_config(settings, "SEQ_CLS")), model, VALUE)
    if start.adapter is not None:
        _put(model, start.adapter)
    for layer in model.modules():
        if isinstance(layer, BaseTunerLayer):
            held = {name for kind in layer.adapter_layer_names for name in getattr(layer, kind)}
            layer.set_adapter([name for name in (REWARD, VALUE) if name in held])
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(VALUE in name.split(".") or name.startswith("score."))
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return model.eval()


def _with_head(shell: PreTrainedModel, adapter: Adapter) -> PreTrainedModel:
    """A twin of `shell` with the adapter's head, in float32."""
    scorer = scorers.twin(shell)
    head = nn.Linear(scorer.score.in_features, 1, bias="bias" in adapter.head, device="meta")
    head.load_state_dict(adapter.head, assign=True)
    scorer.score = head
    return scorer


def _put(model: PreTrainedModel, adapter: Adapter) -> None:
    """Put a trained adapter onto a model, by reference to its tensors; the random state stays as it is."""
    from peft import inject_adapter_in_model

    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Already found a `peft_config`")  # two adapters are what is wanted
        inject_adapter_in_model(_adapters_alone(adapter.config), model, REWARD)
    for name, parameter in model.named_parameters():
        places = name.split(".")
        if REWARD in places:
            parameter.data = adapter.tensors[PREFIX + ".".join(place for place in places if place != REWARD)]


def _adapters_alone(config: LoraConfig) -> LoraConfig:
    """The adapters of a configuration without its head, which is a part of our scorers as it is."""
    return replace(config, modules_to_save=None)
