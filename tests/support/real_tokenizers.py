"""The real tokenizers of ../shared/assets, and what they make of 86 texts."""

from __future__ import annotations

import functools
import gzip
import json
import shutil
from pathlib import Path
from typing import Any

from support.assets import assets


def tokenizer_folder(name: str, where: Path) -> Path:
    """A model folder with nothing but one of the tokenizers, unpacked below `where`."""
    folder = where / name
    shutil.copytree(assets() / "tokenizers" / name, folder)
    packed = folder / "tokenizer.json.gz"
    (folder / "tokenizer.json").write_bytes(gzip.decompress(packed.read_bytes()))
    packed.unlink()
    return folder


@functools.cache
def expected_tokens() -> dict[str, Any]:
    """`strings`, and in `tokens` what each tokenizer makes of them."""
    expected: dict[str, Any] = json.loads((assets() / "expected" / "tokens.json").read_text())
    return expected
