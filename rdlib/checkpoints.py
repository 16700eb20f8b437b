"""Checkpoints without pickle: nested Python data with tensors in it as one safetensors file.

    save(path, {"optimizer": optimizer.state_dict(), "random": random.getstate()})
    load(path)                                            # the same again, tensors on the CPU

Tensors and arrays are the file's tensors, by number; all else is JSON in its metadata, where a container is a pair of
its kind and its items: {"a": (1, tensor)} is ["dict", [["a", ["tuple", [1, ["tensor", "0"]]]]]].
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

STRUCTURE = "structure"


def save(path: Path, content: Any) -> None:
    """Write dictionaries, lists and tuples of tensors, arrays, numbers, texts and None; TypeError for other values."""
    tensors: dict[str, torch.Tensor] = {}
    structure = json.dumps(_encoded(content, tensors))
    temporary = path.with_name(f".{path.name}.tmp")
    save_file(tensors, temporary, metadata={STRUCTURE: structure})
    os.replace(temporary, path)


def load(path: Path) -> Any:
    """What `save` wrote."""
    with safe_open(path, framework="pt") as file:
        return _decoded(json.loads(file.metadata()[STRUCTURE]), file)


def save_batch(path: Path, batch: Mapping[str, Any]) -> Path:
    """Write the tensors of a batch that a training stopped at; returns the path."""
    tensors = {name: t.detach().cpu().contiguous().clone() for name, t in batch.items() if isinstance(t, torch.Tensor)}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path)
    return path


def _encoded(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """`value` as JSON; its tensors go into `tensors`."""
    if isinstance(value, dict):
        return ["dict", [[_encoded(k, tensors), _encoded(v, tensors)] for k, v in value.items()]]
    if isinstance(value, list | tuple):
        return ["tuple" if isinstance(value, tuple) else "list", [_encoded(item, tensors) for item in value]]
    if isinstance(value, torch.Tensor | np.ndarray):
        name = str(len(tensors))
        # a copy: safetensors refuses tensors that share memory
        tensors[name] = torch.as_tensor(value).detach().cpu().clone().contiguous()
        return ["tensor" if isinstance(value, torch.Tensor) else "array", name]
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, str | int | float):
        return value
    raise TypeError(f"a checkpoint cannot hold a {type(value).__name__}")


def _decoded(value: Any, file: Any) -> Any:
    if not isinstance(value, list):
        return value
    kind, content = value
    if kind == "dict":
        return {_decoded(k, file): _decoded(v, file) for k, v in content}
    if kind in ("tensor", "array"):
        tensor = file.get_tensor(content)
        return tensor if kind == "tensor" else tensor.numpy()
    items = [_decoded(item, file) for item in content]
    return tuple(items) if kind == "tuple" else items
