"""Where real benchmarks come from: commits of the Hugging Face hub, or folders of files of the same shape."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from rdlib import artifacts
from rdlib.errors import UserError
from rdlib.settings import Dataset
from rdlib.tasks.records import Record, numbered, read_records

SUFFIXES = (".jsonl", ".parquet")


@dataclass(frozen=True)
class Source:
    """A dataset of the hub at a commit, or a `folder` that holds the same files."""

    repository: str
    revision: str
    config: str | None = None
    folder: Path | None = None

    def at(self, folder: str | None, revision: str | None, root: Path) -> Source:
        """The source as a profile has it: another commit, or a folder relative to `root`."""
        place = root / folder if folder is not None else None
        return Source(self.repository, revision or self.revision, self.config, place)

    def files(self, split: str) -> list[Path]:
        """The files of the folder that hold a split."""
        return [path for suffix in SUFFIXES if (path := self.folder / f"{split}{suffix}").is_file()]

    def first_of(self, *splits: str) -> str:
        """The first of these splits that there is; UserError when the folder has none."""
        if self.folder is None:
            return splits[0]
        if not self.folder.is_dir():
            raise UserError(
                f"{self.folder} is no folder: give that of the benchmark's files, relative to the repository."
            )
        for split in splits:
            if self.files(split):
                return split
        wanted = " or ".join(f"{split}.jsonl" for split in splits)
        raise UserError(f"{self.folder} has no {wanted} (nor .parquet instead): put the benchmark's file there.")

    def records(self, split: str) -> list[Record]:
        """The rows of a split; UserError when they cannot be read."""
        if self.folder is None:
            return _of_hub(self, split)
        return read_records(self.files(self.first_of(split))[0])

    def identity(self, split: str) -> dict[str, str]:
        """What the rows of a split depend on: the commit by repository, or the hash by file name."""
        if self.folder is None:
            return {self.repository: self.revision}
        files = self.files(split)
        return {files[0].name: hash_of(files[0])} if files else {f"{split}.jsonl": "missing"}


# The commits of 2025 and 2026 that stood on the main branches when this was written
GSM8K = Source("openai/gsm8k", "740312add88f781978c0658806c59bc2815b9866", "main")
GSM_PLUS = Source("qintongli/GSM-Plus", "3b708db57b96a16e8e3368ed2956990c0809440e")
MMLU_PRO = Source("TIGER-Lab/MMLU-Pro", "b189ec765aa7ed75c8acfea42df31fdae71f97be")
GSM_PLUS_SPLITS = ("test", "testmini")


def _of_hub(source: Source, split: str) -> list[Record]:
    import datasets  # takes seconds, and only the hub needs it

    name = f"{source.repository} at {source.revision[:7]}"
    try:
        rows = datasets.load_dataset(source.repository, source.config, split=split, revision=source.revision).to_list()
    except Exception as error:  # no network, a gated or renamed dataset, a full disk: each of another library
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise UserError(
            f"{name} cannot be read from the hub ({reason}): it needs a network, and a login where the dataset is "
            f"gated; or give a folder of its files as the dataset's path in the profile."
        ) from None
    return numbered(rows, f"{name}, split {split}")


def hash_of(path: Path) -> str:
    """SHA-256 of a file, computed once as long as the file stays as it is."""
    state = path.stat()
    return _hash(path, state.st_mtime_ns, state.st_size)


WHOLE = 1 << 28  # bytes up to which a model's file is hashed from its first byte to its last
BLOCKS, BLOCK = 64, 1 << 20  # of a larger one, so many blocks of so many bytes


def content_of(path: Path) -> dict[str, str]:
    """The hashes of a model's file, or of its folder's files, by name; {} where there is neither.

    A file above WHOLE bytes is known by its size and BLOCKS blocks of it: reading 140 GB of weights would keep every
    notebook waiting, and training moves all of them.
    """
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    return {
        file.relative_to(path.parent).as_posix(): hash_of(file) if file.stat().st_size <= WHOLE else sampled_hash(file)
        for file in files
    }


def sampled_hash(path: Path) -> str:
    """Hash of a file's size, its first and last block, and those between at equal distances."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        for k in range(BLOCKS):
            file.seek(max(0, size - BLOCK) * k // (BLOCKS - 1))
            digest.update(file.read(BLOCK))
    return digest.hexdigest()


@lru_cache(maxsize=1024)
def _hash(path: Path, _changed: int, _size: int) -> str:
    return artifacts.file_hash(path)


def identity(settings: Dataset, root: Path) -> dict[str, str]:
    """What decides a real dataset's rows beside its settings: commits and hashes of files; {} for the micro world."""
    if settings.source == "gsm8k":
        source = GSM8K.at(settings.path, settings.revision, root)
        plus = GSM_PLUS.at(settings.perturbed_path, settings.perturbed_revision, root)
        tested = [name for name in GSM_PLUS_SPLITS if plus.folder is None or plus.files(name)][:1]
        content = {f"gsm_plus {key}": value for name in tested for key, value in plus.identity(name).items()}
        return source.identity("train") | source.identity("test") | (content if settings.perturbed_test != 0 else {})
    if settings.source == "mmlu_pro":
        source = MMLU_PRO.at(settings.path, settings.revision, root)
        return source.identity("test") | source.identity("validation")
    if settings.source == "questions":
        path = root / settings.path
        return {path.name: hash_of(path) if path.is_file() else "missing"}
    return {}
