"""What a study's models would meet is said before its first notebook, in one sentence, by their small files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from conftest import make_root, stage_in
from test_chat_students import make_study, stage_of
from test_prompts import CHATML, make_tokenizer
from tiny_models import make_model, save_settings, save_tokenizer

from rdlib.engines import models, stateful
from rdlib.errors import UserError
from rdlib.study import requirements


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    """A study of chat models of which nothing has run."""
    return make_study(tmp_path_factory.mktemp("plain"))


def with_student(plain: Path, root: Path, kind: str, profile: dict | None = None, **shape) -> Path:
    """The same study with a student of an architecture, and changes of its profile."""
    root.mkdir(exist_ok=True)
    for name in ("teacher", "q.jsonl"):
        (root / name).symlink_to(plain / name)
    save_tokenizer(root / "student", CHATML, make_tokenizer(None, CHATML, "</s>"))
    make_model(kind, **shape).save_pretrained(root / "student")
    content = yaml.safe_load((plain / "tiny.yaml").read_text()) | (profile or {})
    (root / "tiny.yaml").write_text(yaml.safe_dump(content))
    return root


def check(root: Path, *methods: str) -> None:
    stages = [stage_of(root, "07_evaluate", method) for method in methods or ("ours",)]
    requirements.check_teachers([one for last in stages for one in (*last.upstream(), last)])


LORA = {"training": {"lora": {"r": 2, "alpha": 4, "target_modules": ["q_proj"]}}}
ALL = {"training": {"lora": {"r": 2, "alpha": 4}}}
HEAD = {"sft": {"epochs": 1, "batch_size": 8, "learning_rate": 1e-3, "max_length": 400, "responses_per_question": 1}}
HEAD["sft"]["lora"] = {"r": 2, "alpha": 4, "target_modules": ["q_proj", "lm_head"]}
REFUSED = [
    ("gemma2", {}, {}, r"06_ppo: PPO does not support small .* \(final_logit_softcapping 30.0\)"),
    ("granite", {}, {"logits_scaling": 4.0}, r"PPO does not support small .* \(logits_scaling 4.0\)"),
    ("falcon_h1", {}, {"lm_head_multiplier": 0.5}, r"PPO does not support small .* \(lm_head_multiplier 0.5\)"),
    ("ctrl", {}, {"dff": 48}, "05_reward_model: no reward model can be made of small"),
    ("phi3", LORA, {}, "training.lora does not fit small .* set its target_modules to some of down_proj, .*qkv_proj"),
    ("gpt2", LORA, {}, "training.lora does not fit small .* some of c_attn, c_fc, c_proj"),
    ("mamba", ALL, {}, "training.lora does not fit small .* 'out_proj' is incompatible"),
    ("gpt2", {}, {"max_position_embeddings": 32}, "do not fit into the model's context of 32"),
    ("qwen2", {}, {"vocab_size": 290}, "has the token .* the model's embedding has 290 rows"),
    ("qwen2", HEAD, {"tie_word_embeddings": True}, "sft.lora does not fit small .* embedding are one matrix"),
]


@pytest.mark.parametrize(("kind", "profile", "shape", "said"), REFUSED)
def test_what_cannot_work_is_said_before_the_first_notebook(plain, tmp_path, kind, profile, shape, said):
    root = with_student(plain, tmp_path, kind, profile, **shape)
    with pytest.raises(UserError, match=said) as caught:
        check(root)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=said):
        stage_of(root, "07_evaluate").run_with_inputs()
    assert not (root / "runs").exists()
    if kind == "gemma2":
        check(root, "sft")  # which does not need its logits


@pytest.mark.parametrize("kind", ["granite", "olmoe", "gemma4_text", "gpt2"])
def test_what_works_passes_without_reading_weights(plain, tmp_path, monkeypatch, kind):
    root = with_student(plain, tmp_path, kind)
    monkeypatch.delattr(models, "_load_model")
    check(root, "ours", "grpo", "distillation")


CONFIGS = [
    ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "is quantized .gptq., and cannot be trained"),
    ({"quantization_config": {"quant_method": "fp8"}}, "is quantized .fp8., and cannot be trained"),
    ({"model_type": "t5"}, "cannot build small .t5. .Unrecognized configuration class"),
    ({"pad_token_id": 5000}, "cannot build small .qwen2. .Padding_idx must be within num_embeddings"),
    ({"attn_implementation": "flash_attention_2"}, "cannot build small .qwen2. .FlashAttention2"),
    ({"model_type": "new", "auto_map": {"AutoConfig": "c.C"}}, "cannot be loaded .* contains custom code"),
    ({"model_type": "qwen99"}, "cannot be loaded .* Transformers does not recognize this architecture"),
]


@pytest.mark.parametrize(("config", "said"), CONFIGS)
def test_what_a_configuration_tells_is_said_before_the_first_notebook(plain, tmp_path, config, said):
    root = with_student(plain, tmp_path, "qwen2")
    path = root / "student/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    with pytest.raises(UserError, match=said):
        check(root, "sft")


FILES = {"adapter": "is an adapter", "gguf": "is a file, where a model is a folder"}
FILES |= dict.fromkeys(["bin", "shard", "cut"], "cannot be read from model")


@pytest.mark.parametrize("files", FILES)
def test_files_of_weights_that_are_not_there_are_said_before_the_first_notebook(plain, tmp_path, files):
    root = with_student(plain, tmp_path, "qwen2")
    folder = root / "student"
    whole = folder / "model.safetensors"
    if files == "adapter":
        save_settings(folder, "adapter_config.json", peft_type="LORA")
    elif files == "bin":
        whole.rename(folder / "pytorch_model.bin")
    elif files == "shard":
        models.load_causal_lm(folder).save_pretrained(folder, max_shard_size="20KB")
        sorted(folder.glob("model-*.safetensors"))[-1].unlink()
    elif files == "gguf":
        folder.rename(root / "folder")
        folder.write_bytes(b"GGUF")
    else:
        whole.write_bytes(whole.read_bytes()[:-100])
    with pytest.raises(UserError, match=FILES[files]):
        check(root, "sft")


def test_a_template_that_refuses_examples_is_said_before_in_context_learning_alone(plain, tmp_path):
    root = with_student(plain, tmp_path, "qwen2")
    one = "{% if messages | length > 2 %}{{ raise_exception('a single turn') }}{% endif %}"
    save_tokenizer(root / "student", one + CHATML, make_tokenizer(None, None, "</s>"))
    check(root, "sft")
    with pytest.raises(UserError, match="refuses user and assistant turns .a single turn."):
        check(root, "icl")


def test_a_model_with_a_state_is_said_to_be_slower(plain, tmp_path, capsys):
    stateful._said.clear()
    check(with_student(plain, tmp_path, "lfm2"))
    assert "lfm2 keep a state" in capsys.readouterr().out


def test_another_vocabulary_is_said_before_distillation_alone(plain, tmp_path):
    root = with_student(plain, tmp_path, "qwen2")
    made = make_tokenizer(None, CHATML, "</s>")
    made.add_tokens(["another"])
    save_tokenizer(root / "student", CHATML, made)
    check(root, "grpo")
    with pytest.raises(UserError, match="has another vocabulary than the student small"):
        check(root, "grpo", "distillation")


def test_settings_of_generation_that_cannot_be_saved_do_no_harm_and_a_template_that_drops_the_question_is_said(
    plain, tmp_path
):
    root = with_student(plain, tmp_path, "qwen2")
    save_settings(root / "student", "generation_config.json", eos_token_id=1, temperature=0.6, do_sample=False)
    check(root)
    models.load_causal_lm(root / "student").save_pretrained(tmp_path / "saved")
    save_tokenizer(root / "student", "<|im_start|>user\n<|im_end|>\n<|im_start|>assistant\n")
    with pytest.raises(UserError, match="drops what the user says"):
        check(root)


def test_the_micro_models_and_models_that_are_not_at_hand_are_left_out(tmp_path):
    root = make_root(tmp_path)
    last = stage_in(root, "07_evaluate")
    assert requirements.uses([*last.upstream(), last]) == {}
    away = make_root(tmp_path / "away", students={"small": "org/student", "large": "org/other"})
    last = stage_in(away, "07_evaluate")
    requirements.check_teachers([*last.upstream(), last])
