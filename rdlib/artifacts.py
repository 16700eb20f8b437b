"""Artifacts: files written atomically, complete stage folders sealed by a manifest with hashes.

A stage writes into `<folder>.partial`; when it has finished, a manifest with the hash of every file is
added and the folder renamed. So a folder with its final name is always complete, and reading checks
that nothing in it was cut or edited since.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd

from rdlib.errors import UserError

MANIFEST = "manifest.json"
PACKAGES = ("torch", "transformers", "trl", "accelerate", "numpy", "pandas")


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file so that it is either whole or absent: temporary file, fsync, rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def write_json(path: Path, content: Any) -> None:
    """Write JSON with sorted keys, atomically."""
    write_bytes(path, (json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """Read a JSON file; UserError when it is missing or not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing: run the stage that writes it again.") from None
    except (ValueError, OSError) as error:
        raise UserError(f"{path} cannot be read ({error}): delete it and run its stage again.") from None


def write_parquet(path: Path, frame: pd.DataFrame) -> None:
    """Write a table as Parquet, atomically and reproducibly."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    frame.to_parquet(temporary, index=False, compression="zstd")
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    temporary.replace(path)


def read_parquet(path: Path, columns: Iterable[str] = ()) -> pd.DataFrame:
    """Read a table and check that it has the columns named; UserError otherwise."""
    try:
        frame = pd.read_parquet(path)
    except FileNotFoundError:
        raise UserError(f"{path} is missing: run the stage that writes it again.") from None
    except Exception as error:  # pyarrow raises several unrelated types for a damaged file
        raise UserError(f"{path} is not a readable Parquet file ({type(error).__name__}): delete its folder.") from None
    missing = [column for column in columns if column not in frame.columns]
    if missing:
        raise UserError(f"{path} lacks the columns {', '.join(missing)}: it was made by something else; delete it.")
    return frame


def file_hash(path: Path) -> str:
    """SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_hash(content: Any) -> str:
    """SHA-256 of a JSON-able value."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def hash_files(folder: Path) -> dict[str, str]:
    """Hash of every file below a folder, manifest left out, by relative path."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST)
    return {p.relative_to(folder).as_posix(): file_hash(p) for p in files}


@cache
def environment() -> dict[str, Any]:
    """What made an artifact: commit, whether the tree was dirty, package versions, machine. No path, no user."""
    return {
        "commit": _git("rev-parse", "HEAD") or "unknown",
        "dirty": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "packages": {name: metadata.version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
    }


def _git(*arguments: str) -> str:
    try:
        root = Path(__file__).parent.parent
        return subprocess.run(["git", *arguments], capture_output=True, text=True, cwd=root).stdout.strip()
    except OSError:
        return ""


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def seal(partial: Path, folder: Path, record: dict[str, Any]) -> None:
    """Turn a finished partial folder into the stage's folder, with its manifest; replaces an older one."""
    write_json(partial / MANIFEST, record | {"files": hash_files(partial), "environment": environment()})
    if folder.exists():
        old = folder.with_name(folder.name + ".old")
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
        partial.rename(folder)
        shutil.rmtree(old)
    else:
        partial.rename(folder)


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a complete stage folder, None where there is no such folder; UserError when foreign."""
    path = folder / MANIFEST
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file where a stage's folder belongs: move it away.")
    if not path.exists():
        if folder.exists() and any(folder.iterdir()):
            raise UserError(f"{folder} holds files but no manifest, so no stage made it: move it away.")
        return None
    manifest = read_json(path)
    if (
        not isinstance(manifest, dict)
        or not {"stage", "key"} <= set(manifest)
        or not isinstance(manifest.get("files"), dict)
    ):
        raise UserError(f"{path} is not a manifest of this project: move {folder} away and run its stage again.")
    return manifest


def verify(folder: Path, manifest: dict[str, Any]) -> None:
    """Check every file of a stage folder against its manifest; UserError naming the first that differs."""
    for name, expected in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            raise UserError(f"{path} is gone though {MANIFEST} lists it: delete {folder} and run its stage again.")
        if file_hash(path) != expected:
            raise UserError(f"{path} was changed or cut after it was made: delete {folder} and run its stage again.")
