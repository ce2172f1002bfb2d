"""The process that looks at a model folder before the shards do."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from penstock_shard.check import check


def test_what_the_launcher_learns(checkpoint: Callable[[str], Path]) -> None:
    assert check(checkpoint("llama2"), "auto", 4) == {"max_positions": 512, "notices": ()}
    assert check(checkpoint("qwen2_yarn"), "dummy", 1)["max_positions"] == 512


def test_files_do_not_matter_without_weights(own_checkpoint: Callable[..., Path]) -> None:
    folder = own_checkpoint()
    (folder / "model.safetensors").write_bytes(b"")
    check(folder, "dummy", 1)
    with pytest.raises(ValueError, match="but the safetensors hold 0 bytes"):
        check(folder, "auto", 1)


def test_it_needs_no_torch() -> None:
    """So it answers in a tenth of a second."""
    code = "import penstock_shard.check, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
