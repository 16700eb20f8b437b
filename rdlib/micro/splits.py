"""Which draw a generated problem belongs to: decided by a hash of the problem, so draws cannot overlap."""

from __future__ import annotations

from rdlib.micro.authors import unit_hash

SHARES = {"pretraining": 0.60, "train": 0.15, "validation": 0.10, "test": 0.15}


def split_of(key: str) -> str:
    """The split of the problem with this key: a function of the key alone."""
    position = unit_hash("split", key)
    for name, share in SHARES.items():
        if position < share:
            return name
        position -= share
    return "test"
