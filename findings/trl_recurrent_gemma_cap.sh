#!/usr/bin/env bash
# Guess: without settings for another loss, SFTTrainer minimises the loss that the model's own forward gives for the
#   same labels, at least where the model's class is one of transformers' own.
# What happens: TRL calls the model's layers and multiplies by the output layer itself, in tiles. So it repeats what a
#   model does to its logits, by the names of settings that it knows. RecurrentGemma's soft cap is in logits_soft_cap,
#   not in final_logit_softcapping, and is left out without a message. Trained and evaluated is a model without a cap,
#   while generate samples from one with it. Gemma 2, with its cap by the other name, has the same loss both ways.
# Version: trl 1.16.0 with transformers 5.17.0 and torch 2.13.0.
# Why it matters: the distribution that a student is trained on is not the one that it is sampled and scored by, and the
#   logged loss is not the model's. TRL's DPO and GRPO take their log-probabilities from the same function.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
pip=("$folder/venv/bin/pip" --quiet --disable-pip-version-check)
"${pip[@]}" install trl==1.16.0 transformers==5.17.0 torch==2.13.0 accelerate==1.15.0 datasets==5.2.0
cat >"$folder/losses.py" <<'PYTHON'
import sys
from importlib.metadata import version

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    PreTrainedTokenizerFast,
    RecurrentGemmaConfig,
    RecurrentGemmaForCausalLM,
)
from transformers.trainer_callback import PrinterCallback
from trl import SFTConfig, SFTTrainer

CAP, WORDS = 30.0, 64
SIZES = {"vocab_size": WORDS, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "head_dim": 16}


def make_model(kind, config):
    """A random model with logits beyond the cap."""
    torch.manual_seed(0)
    model = kind(config).eval()
    for weight in model.parameters():
        weight.data *= 40
    return model


def own_loss(model, rows):
    """The loss that the model's own forward gives."""
    with torch.no_grad():
        return model(rows, labels=rows).loss.item()


def trainers_loss(model, rows):
    """The loss that SFTTrainer gives."""
    vocabulary = {"<pad>": 0, "<eos>": 1} | {f"w{number}": number for number in range(2, WORDS)}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    arguments = SFTConfig(output_dir=sys.argv[1], bf16=False, use_cpu=True, report_to="none", disable_tqdm=True)
    dataset = Dataset.from_dict({"input_ids": rows.tolist()})
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>")
    trainer = SFTTrainer(model, arguments, train_dataset=dataset, eval_dataset=dataset, processing_class=tokenizer)
    trainer.remove_callback(PrinterCallback)
    return trainer.evaluate()["eval_loss"]


def compare(kind, config, cap):
    """The trainer's loss, and the model's own with its cap and without it."""
    model = make_model(kind, config)
    rows = torch.randint(2, WORDS, (8, 16), generator=torch.Generator().manual_seed(0))
    capped = own_loss(model, rows)
    setattr(model.config, cap, 1e6)  # as good as none
    free = own_loss(model, rows)
    setattr(model.config, cap, CAP)
    trained = trainers_loss(model, rows)
    print(f"{kind.__name__}, {cap}={CAP}: SFTTrainer {trained:.3f}, the model {capped:.3f}, uncapped {free:.3f}")
    return trained, capped, free


print(*(f"{name} {version(name)}" for name in ("trl", "transformers", "torch")))
gemma2 = Gemma2Config(final_logit_softcapping=CAP, num_hidden_layers=3, num_key_value_heads=2, **SIZES)
recurrent = RecurrentGemmaConfig(logits_soft_cap=CAP, num_hidden_layers=3, lru_width=32, **SIZES)
trained, capped, free = compare(Gemma2ForCausalLM, gemma2, "final_logit_softcapping")
same = abs(trained - capped) < 1e-3 < 0.1 < free - capped
trained, capped, free = compare(RecurrentGemmaForCausalLM, recurrent, "logits_soft_cap")
same &= abs(trained - free) < 1e-3 < 0.1 < free - capped
sys.exit(0 if same else "This behaviour has changed.")
PYTHON
"$folder/venv/bin/python" "$folder/losses.py" "$folder" 2>"$folder/log" || { tail -n 5 "$folder/log" >&2; exit 1; }
