"""Matrices as the libraries of each format store them (scripts/integer_fixtures.py) mean what those
libraries make of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from penstock_quantization.matrix import MatrixSpec, Slice
from penstock_quantization.methods import parse_scheme
from penstock_quantization.reader import reader_for
from penstock_shard.weights.checkpoint import Checkpoint

FOLDER = Path(__file__).parent / "integer_fixtures"
NAMES = sorted(path.stem for path in FOLDER.glob("*.safetensors"))
N, K = 64, 128


def test_every_library_is_there() -> None:
    assert {"gptq", "gptq-v2", "gptq-act-order", "awq", "packed", "torchao-fp8"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_matrix_is_what_its_library_says(name: str, tmp_path: Path) -> None:
    shutil.copy(FOLDER / f"{name}.safetensors", tmp_path / "model.safetensors")
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        config = json.loads(file.metadata()["quantization_config"])
        expected = file.get_tensor("expected")
    scheme = parse_scheme({"quantization_config": config})
    reader = reader_for(scheme, Checkpoint(tmp_path), torch.float32, torch.device("cpu"))
    for rows, columns in ((range(N), range(K)), (range(32, N), range(K)), (range(N), range(64, K))):
        spec = MatrixSpec((Slice("m", rows, N),), columns, K, False, False)
        found = reader.read(spec).dequantised()
        part = expected[rows.start : rows.stop, columns.start : columns.stop]
        if part.dtype == torch.float32:
            torch.testing.assert_close(found, part, rtol=1e-6, atol=0)
        else:
            step = torch.finfo(part.dtype).eps
            torch.testing.assert_close(found, part.float(), rtol=2 * step, atol=1e-6)
