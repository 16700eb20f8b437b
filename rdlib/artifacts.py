"""Artifacts: files written atomically, complete stage folders sealed by a manifest with hashes.

A stage writes into `<folder>.partial`, which it holds (`hold`) as long as it works there; when it has finished, a
manifest with the hash of every file is added and the folder renamed. So a folder with its final name is always
complete, and reading checks that nothing in it was cut or edited since.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from rdlib import numerics
from rdlib.errors import UserError

MANIFEST = "manifest.json"
KEY = ".key"  # in a partial folder: the key that it was begun with, and the file that is locked
PACKAGES = ("torch", "transformers", "trl", "accelerate", "numpy", "pandas")


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file so that it is either whole or absent: temporary file, fsync, rename."""
    with whole_or_absent(path) as temporary:
        temporary.write_bytes(content)


@contextlib.contextmanager
def whole_or_absent(path: Path) -> Iterator[Path]:
    """A temporary file to write; afterwards it gets its name, or is gone where writing failed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


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
    with whole_or_absent(path) as temporary:
        frame.to_parquet(temporary, index=False, compression="zstd", schema=schema_of(frame))


def schema_of(frame: pd.DataFrame) -> pa.Schema:
    """The types of a table's columns, text where a column or its lists hold nothing: the same whatever the rows are."""
    schema = pa.Schema.from_pandas(frame, preserve_index=False)
    for place, field in enumerate(schema):
        if pa.types.is_null(field.type):
            schema = schema.set(place, field.with_type(pa.large_string()))
        elif pa.types.is_list(field.type) and pa.types.is_null(field.type.value_type):
            schema = schema.set(place, field.with_type(pa.list_(pa.string())))
    return schema


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
    """Hash of every file of a stage's folder by relative path; its manifest and key are no content."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p not in (folder / MANIFEST, folder / KEY))
    return {p.relative_to(folder).as_posix(): file_hash(p) for p in files}


def schemas(folder: Path) -> dict[str, dict[str, str]]:
    """The columns of every table of a stage's folder and their types, by relative path."""
    found = {path.relative_to(folder).as_posix(): pq.read_schema(path) for path in sorted(folder.rglob("*.parquet"))}
    return {name: {field.name: str(field.type) for field in schema} for name, schema in found.items()}


def environment() -> dict[str, Any]:
    """What made an artifact: commit, package versions, machine, numerical mode. No path, no user."""
    return _versions() | numerics.record()


# What a release writes makes no artifact: a seed computed after one is as clean as before.
_NOT_RELEASED = (":/", ":(top,exclude)figures", ":(top,exclude)docs", ":(top,exclude)README.md")


@cache
def _versions() -> dict[str, Any]:
    return {
        "commit": _git("rev-parse", "HEAD") or "unknown",
        "dirty": bool(_git("status", "--porcelain", "--untracked-files=no", "--", *_NOT_RELEASED)),
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


@contextlib.contextmanager
def locked(folder: Path, busy: str) -> Iterator[int]:
    """Hold a folder; gives the lock's descriptor. UserError, saying `busy`, where another process holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(busy) from None
        yield lock.fileno()


@contextlib.contextmanager
def hold(partial: Path, key: str) -> Iterator[None]:
    """Work in a partial folder, alone: what another key left there is removed first.

    UserError where another process works there. The lock ends with the process, however that ends.
    """
    partial.mkdir(parents=True, exist_ok=True)
    with (partial / KEY).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            ours = os.path.samestat(os.fstat(file.fileno()), (partial / KEY).stat())
        except (BlockingIOError, FileNotFoundError):
            ours = False
        if not ours:  # locked, or finished and renamed a moment ago
            raise UserError(
                f"Another run is at work in {partial}: wait until it has ended, or stop it; then run this again."
            )
        file.seek(0)
        if file.read() != key:
            file.truncate(0)  # first: what is left while this goes on belongs to no key
            for path in partial.iterdir():
                if path.name != KEY:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            file.write(key)
            file.flush()
            os.fsync(file.fileno())
        yield


def seal(partial: Path, folder: Path, record: dict[str, Any]) -> None:
    """Turn a finished partial folder into the stage's folder, with its manifest; replaces an older one."""
    made = {"files": hash_files(partial), "schemas": schemas(partial), "environment": environment()}
    write_json(partial / MANIFEST, record | made)
    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    partial.rename(folder)
    (folder / KEY).unlink(missing_ok=True)
    shutil.rmtree(old, ignore_errors=True)


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


def verify(folder: Path, manifest: dict[str, Any], command: str, names: Iterable[str] | None = None) -> None:
    """Check files of a stage's folder against its manifest, all where no `names` are given.

    UserError naming the first that differs, and the `command` that remakes the folder.
    """
    remake = f"delete {folder}, then run `{command}`."
    for name in manifest["files"] if names is None else names:
        path = folder / name
        if not path.is_file():
            raise UserError(f"{path} is gone: {remake}")
        if file_hash(path) != manifest["files"].get(name):
            raise UserError(f"{path} was changed or cut after it was made: {remake}")
