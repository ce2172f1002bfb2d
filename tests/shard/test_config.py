"""The configuration on standard input, and the sizes of CUDA graphs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from penstock_shard.config import ShardConfig
from penstock_shard.steps.graphs import buckets_for
from support.shard_driver import shard_config

VALUES = shard_config(Path("/model"), Path("/sockets"))


def test_round_trip() -> None:
    config = ShardConfig.from_json(json.dumps(VALUES | {"cuda_graphs": [4, 8]}))
    assert (config.model_path, config.dtype, config.cuda_graphs) == ("/model", "float32", (4, 8))
    assert ShardConfig.from_json(json.dumps(VALUES)).cuda_graphs is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "shard configuration is a JSON list, not an object"),
        (json.dumps({"model_path": "x"}), "shard configuration lacks .*'dtype'"),
        (json.dumps(VALUES | {"speed": 1}), r"shard configuration has unknown keys \['speed'\]"),
        ("{", "Expecting property name"),
    ],
)
def test_malformed(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ShardConfig.from_json(text)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dtype": "int8"}, "dtype must be one of .*, not 'int8'"),
        ({"device": "tpu"}, "device must be one of .*, not 'tpu'"),
        ({"load_format": "pickle"}, "load_format must be one of .*, not 'pickle'"),
        ({"kv_block_size": 0}, "kv_block_size must be from 1 to 1024, not 0"),
        ({"kv_block_size": 1025}, "not 1025"),
        ({"cuda_memory_fraction": 0.0}, r"cuda_memory_fraction must be in \(0, 1\], not 0.0"),
        ({"cuda_memory_fraction": 1.1}, "not 1.1"),
        ({"kv_cache_memory": -1}, "kv_cache_memory must not be negative"),
        ({"leave_free": -1}, "leave_free must not be negative"),
    ],
)
def test_out_of_bounds(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ShardConfig.from_json(json.dumps(VALUES | changes))


def test_graph_sizes() -> None:
    """Ascending, up to every slot, few, and padding wastes little."""
    for rows in (1, 2, 3, 7, 64, 65, 100, 128, 255, 256, 300, 777, 1024):
        sizes = buckets_for(rows)
        assert sizes == sorted(set(sizes)) and sizes[-1] == rows and sizes[0] == 1
        assert len(sizes) <= 35
        for count in range(1, rows + 1):
            bucket = next(size for size in sizes if size >= count)
            # A small batch reads weights, which padding does not add to.
            assert bucket - count < max(8, count / 3)
    assert len(buckets_for(256)) <= 23


def test_formats_of_quantize_are_those_of_the_launcher() -> None:
    from penstock_launcher.options import OPTIONS
    from penstock_quantization.methods import LOADED, STORED
    from penstock_quantization.online import ONLINE

    assert set(LOADED) == set(ONLINE)
    [option] = [option for option in OPTIONS if option.name == "quantize"]
    assert set(option.kind.metavar.strip("{}").split(",")) == {*LOADED, *STORED}
