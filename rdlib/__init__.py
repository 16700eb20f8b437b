"""A study of distilling a large language model into a small one with a reward model and PPO: docs/architecture.md."""

from rdlib import numerics

numerics.enter()  # before torch, which reads its environment once
