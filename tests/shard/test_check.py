"""The process that looks at a model folder before the shards do."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from penstock_shard.check import check
from penstock_shard.weights.cut_off import check_all_there


def test_what_the_launcher_learns(checkpoint: Callable[[str], Path]) -> None:
    assert check(checkpoint("llama2"), "auto", 4) == {"max_positions": 512, "notices": ()}
    assert check(checkpoint("qwen2_yarn"), "dummy", 1)["max_positions"] == 512


def test_files_do_not_matter_without_weights(own_checkpoint: Callable[..., Path]) -> None:
    folder = own_checkpoint()
    (folder / "model.safetensors").write_bytes(b"")
    check(folder, "dummy", 1)
    with pytest.raises(ValueError, match="model.safetensors is cut off: it has 0 bytes"):
        check(folder, "auto", 1)


@pytest.mark.parametrize("lost", [1, 1000, -6, -5000], ids=str)
def test_a_file_that_is_cut_off(own_checkpoint: Callable[..., Path], lost: int) -> None:
    """Said before anything is loaded, with what it has and what it should have."""
    path = own_checkpoint() / "model.safetensors"
    data = path.read_bytes()
    check(path.parent, "auto", 1)
    left = data[:-lost]
    path.write_bytes(left)
    sizes = rf"it has {len(left):,} bytes and needs at least [0-9,]+; fetch or copy it again"
    if lost > 0:
        sizes = sizes.replace("[0-9,]+", f"{len(data):,}")
    with pytest.raises(ValueError, match=sizes):
        check(path.parent, "auto", 1)


def test_a_clone_without_git_lfs(own_checkpoint: Callable[..., Path]) -> None:
    path = own_checkpoint() / "model.safetensors"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 9\n")
    with pytest.raises(ValueError, match="a pointer of Git LFS .* `git lfs pull` fetches them"):
        check(path.parent, "auto", 1)


@pytest.mark.parametrize(
    "header",
    [b"[]", b"{", b'{"a": 1}', b'{"a": {"data_offsets": ["x", "y"]}}', b'{"a": {}}', b"[" * 9999],
    ids=lambda header: header[:9].decode(),
)
def test_a_damaged_header_is_left_to_the_library(tmp_path: Path, header: bytes) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    check_all_there(path)


def test_files_of_another_model(own_checkpoint: Callable[..., Path]) -> None:
    folder = own_checkpoint()
    save_file({"a": torch.zeros(1)}, folder / "model.safetensors")
    with pytest.raises(ValueError, match="config.json describes .* of another model, or files are"):
        check(folder, "auto", 1)


def test_it_needs_no_torch() -> None:
    """So it answers in a tenth of a second."""
    code = "import penstock_shard.check, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
