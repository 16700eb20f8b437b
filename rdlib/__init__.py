"""A study of distilling a large language model into a small one with a reward model and PPO: docs/architecture.md."""
