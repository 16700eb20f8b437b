#!/usr/bin/env bash
# Guess: SFT on the answers alone needs the output layer at the answers' positions alone. add_fused_lm_head's docstring
#   says so: it projects only the positions whose next token has a label.
# What happens: this holds where Triton runs. On a CPU the output layer's products are computed of all positions, of
#   prompts and padding too, and the results set to zero afterwards. With 8 labels in 64 positions torch counts as many
#   floating-point operations as with 64 labels.
# Version: trl 1.16.0 with transformers 5.17.0 and torch 2.13.0.
# Why it matters: with 151,936 words and 0.5 billion parameters the output layer was three fifths of a step's time on a
#   CPU, most of it for prompts. Memory and estimates by the number of labels are wrong by the same factor.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
pip=("$folder/venv/bin/pip" --quiet --disable-pip-version-check)
"${pip[@]}" install trl==1.16.0 transformers==5.17.0 torch==2.13.0 accelerate==1.15.0 datasets==5.2.0
cat >"$folder/positions.py" <<'PYTHON'
import sys
from importlib.metadata import version

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.trainer_callback import PrinterCallback
from trl import SFTConfig, SFTTrainer

WORDS, LENGTH, WIDTH = 4096, 65, 16


def operations(labels):
    """Floating-point operations of one training step on a row whose last tokens, so many, have labels."""
    torch.manual_seed(0)
    size = {"intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=WORDS, hidden_size=WIDTH, **size))
    words = {"<pad>": 0, "<eos>": 1} | {f"w{number}": number for number in range(2, WORDS)}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="<pad>")), pad_token="<pad>", eos_token="<eos>"
    )
    ids = torch.randint(2, WORDS, (LENGTH,)).tolist()
    row = {"input_ids": [ids], "labels": [[-100] * (LENGTH - labels) + ids[LENGTH - labels :]]}
    arguments = SFTConfig(
        output_dir=sys.argv[1],
        max_steps=1,
        bf16=False,
        use_cpu=True,
        gradient_checkpointing=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    trainer = SFTTrainer(model, arguments, train_dataset=Dataset.from_dict(row), processing_class=tokenizer)
    trainer.remove_callback(PrinterCallback)
    with FlopCounterMode(display=False) as counter:
        trainer.train()
    return counter.get_total_flops()


print(*(f"{name} {version(name)}" for name in ("trl", "transformers", "torch")))
few, all_of_them = operations(8), operations(LENGTH - 1)
print(f"8 labels: {few / 1e6:.1f} million operations; {LENGTH - 1} labels: {all_of_them / 1e6:.1f} million")
sys.exit(0 if few == all_of_them > 2 * LENGTH * WORDS * WIDTH else "This behaviour has changed.")
PYTHON
"$folder/venv/bin/python" "$folder/positions.py" "$folder" 2>"$folder/log" || { tail -n 5 "$folder/log" >&2; exit 1; }
