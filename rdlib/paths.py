"""Where the repository lies: what a profile, a notebook or a released result names is relative to it."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
