"""Makes ppo_golden.npz: one update of trl 1.12.0's PPOTrainer, seen from inside, for tests/test_ppo.py.

TRL 1.12.0 is the last release with a PPOTrainer, and it does not belong to this project's environment. In one
of its own (python -m venv trl112; trl112/bin/pip install torch==2.13.0 trl==1.12.0; made with transformers
5.23.0):

    OMP_NUM_THREADS=1 trl112/bin/python tests/golden/make_ppo_golden.py

Two cases. "full": no stop token, so every response has the same length. "ragged": responses end with EOS,
some are cut at the length limit, one pads. The numbers are read from the local variables of PPOTrainer.train,
at the points where it calls masked_whiten (rollout phase), accelerator.backward (each minibatch) and log
(statistics).
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"

import numpy as np
import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification, PreTrainedTokenizerFast
from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer

VOCABULARY, PAD, EOS, QUERIES, RESPONSE_LENGTH = 24, 0, 1, 8, 7
CONFIG = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 32,
    "initializer_range": 0.4,
    "pad_token_id": PAD,
    "eos_token_id": EOS,
    "bos_token_id": None,
}
SETTINGS = {
    "learning_rate": 3e-3,
    "num_ppo_epochs": 2,
    "num_mini_batches": 2,
    "kl_coef": 0.2,
    "vf_coef": 0.1,
    "cliprange": 0.2,
    "cliprange_value": 0.2,
    "gamma": 0.98,
    "lam": 0.9,
    "temperature": 0.7,
}
ROLLOUT = ("responses", "logprobs", "ref_logprobs", "values", "scores", "rewards", "advantages", "returns")
MINIBATCH = ("micro_batch_inds", "new_logprobs", "vpred", "ratio", "pg_loss", "vf_loss", "logits")
STATISTICS = ("approxkl", "pg_clipfrac", "pg_loss", "vf_loss", "vf_clipfrac", "entropy", "ratio")


def main() -> None:
    """Run both cases and write ppo_golden.npz beside this script."""
    arrays = weights("before/", *networks()[:3]) | {f"settings/{k}": np.array(v) for k, v in SETTINGS.items()}
    for case in ("full", "ragged"):
        arrays |= first_suitable(case)
    path = Path(__file__).with_name("ppo_golden.npz")
    np.savez_compressed(path, **arrays)
    print(f"{path.name}: {len(arrays)} arrays, {path.stat().st_size} bytes")


def first_suitable(case: str) -> dict[str, np.ndarray]:
    """The first sampling seed whose responses suit the case: TRL takes a sampled pad token for the end."""
    for seed in range(1000):
        torch.manual_seed(seed)
        arrays = run(case, seed)
        if arrays is not None:
            print(case, "seed", seed)
            return arrays
    raise SystemExit(f"No seed gives suitable responses for {case}.")


def networks() -> tuple:
    """Policy, reference, value model and reward model, all different, from fixed seeds."""
    made = []
    for seed, kind in enumerate([LlamaForCausalLM] * 2 + [LlamaForSequenceClassification] * 2):
        torch.manual_seed(100 + seed)
        made.append(kind(LlamaConfig(**CONFIG, num_labels=1)))
    policy, reference, value_model, reward_model = made
    with torch.no_grad():  # the reference is near the policy, as in training
        for p, r in zip(policy.parameters(), reference.parameters(), strict=True):
            r.copy_(p + 0.05 * r)
        value_model.score.weight *= 0.3
    return policy, reference, value_model, reward_model


def weights(prefix: str, policy, reference, value_model) -> dict[str, np.ndarray]:
    """State dictionaries as named arrays."""
    models_ = {"policy": policy, "reference": reference, "value_model": value_model}
    return {
        f"{prefix}{name}/{key}": tensor.detach().numpy().copy()
        for name, model in models_.items()
        if model is not None
        for key, tensor in model.state_dict().items()
    }


def queries() -> list[list[int]]:
    """Fixed queries of 3 to 6 tokens, without pad and EOS."""
    generator = np.random.default_rng(0)
    return [generator.integers(2, VOCABULARY, 3 + i % 4).tolist() for i in range(QUERIES)]


def tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer over the ids, padding on the left."""
    vocabulary = {"<pad>": PAD, "<eos>": EOS} | {f"w{i}": i for i in range(2, VOCABULARY)}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="<eos>", padding_side="left")


def suits(case: str, responses: torch.Tensor) -> bool:
    """Full: no pad at all. Ragged: pads only after the EOS, some rows ended early, some cut."""
    is_pad, is_eos = responses == PAD, responses == EOS
    if case == "full":
        return not is_pad.any() and not is_eos.any()
    ended = is_eos.cumsum(1) > 0
    lengths = (~is_pad).sum(1)
    return bool((is_pad <= ended).all() and 3 <= is_eos.any(1).sum() <= 6 and lengths.min() == 1)


class UnsuitableError(Exception):
    """The sampled responses do not suit the case."""


def run(case: str, seed: int) -> dict[str, np.ndarray] | None:
    """One update of PPOTrainer with its inside recorded; None if the responses do not suit."""
    policy, reference, value_model, reward_model = networks()
    with tempfile.TemporaryDirectory() as folder:
        config = PPOConfig(
            output_dir=folder,
            seed=seed,
            per_device_train_batch_size=QUERIES,
            gradient_accumulation_steps=1,
            total_episodes=QUERIES,
            local_rollout_forward_batch_size=QUERIES,
            response_length=RESPONSE_LENGTH,
            stop_token="eos" if case == "ragged" else None,
            num_sample_generations=0,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            **SETTINGS,
        )
        dataset = Dataset.from_dict({"input_ids": queries()})
        trainer = PPOTrainer(
            config, tokenizer(), policy, reference, reward_model, dataset, value_model, eval_dataset=dataset
        )
        arrays: dict[str, np.ndarray] = {}
        record(trainer, arrays, case)
        np.random.seed(seed)
        try:
            trainer.train()
        except UnsuitableError:
            return None
    after = weights("after/", policy, None, value_model) if case == "full" else {}
    return {f"{case}/{name}": array for name, array in (arrays | after).items()}


def record(trainer: PPOTrainer, arrays: dict[str, np.ndarray], case: str) -> None:
    """Hook the three calls of PPOTrainer.train whose surroundings hold the numbers."""
    whiten, backward = ppo_trainer._masked_whiten, trainer.accelerator.backward

    def recording_whiten(values, mask, shift_mean=True):
        inside = sys._getframe(1).f_locals
        if not suits(case, inside["responses"]):
            raise UnsuitableError
        for name in ROLLOUT:
            arrays[name] = inside[name].numpy().copy()
        arrays["queries"] = inside["queries"].numpy().copy()
        arrays["mask"] = ~inside["padding_mask"].numpy()
        arrays["mask_p1"] = ~inside["padding_mask_p1"].numpy()
        result = whiten(values, mask, shift_mean)
        arrays["whitened"] = result.masked_fill(~mask, 0).numpy().copy()
        return result

    def recording_backward(loss, **kwargs):
        inside = sys._getframe(1).f_locals
        step = sum(name.endswith("pg_loss") for name in arrays)
        for name in MINIBATCH:
            value = inside[name]
            arrays[f"step{step}/{name}"] = (
                (value.detach() if torch.is_tensor(value) else torch.tensor(value)).numpy().copy()
            )
        backward(loss, **kwargs)

    def recording_log(metrics, *_, **__):
        inside = sys._getframe(1).f_locals
        for name in STATISTICS:
            arrays[f"statistics/{name}"] = inside[f"{name}_stats"].flatten().numpy().copy()
        for name in ("objective/kl", "objective/scores"):
            arrays[f"metrics/{name}"] = np.array(metrics[name])

    ppo_trainer.masked_whiten = recording_whiten
    trainer.accelerator.backward = recording_backward
    trainer.log = recording_log


ppo_trainer._masked_whiten = ppo_trainer.masked_whiten
if __name__ == "__main__":
    main()
