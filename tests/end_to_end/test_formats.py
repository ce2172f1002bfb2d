"""Every format of weights through the whole stack, on 1, 2 and 4 shards: greedy tokens are those of
the numbers that the checkpoint means, with a prefix that is cached, and beside a grammar.

`tests/shard` has formats x families x ranks, without the server.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import aiohttp
import pytest
import torch
from tokenizers import Tokenizer

from penstock_shard.weights.quantize import main as quantize
from shard.test_fp8_rows import GROUPS_OF_64, RoundedRows
from shard.test_kv_cache_fp8 import SCHEME, scales_of, with_scales
from support import fp8_checkpoints, integer_checkpoints, lut_checkpoints
from support.checkpoints import make_checkpoint
from support.local_shard import LocalShard, load_model
from support.parity import Case, assert_equal, generate
from support.reference import ReferenceModel
from support.server import Server, running_server

SIZES = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2}  # in four whole cuts
WRITERS = (fp8_checkpoints, integer_checkpoints, lut_checkpoints)
CHECKPOINTS = [(writer, name) for writer in WRITERS for name in writer.FORMATS]
ONLINE = ("fp8", "eetq", "bitsandbytes", "bitsandbytes-nf4", "bitsandbytes-fp4")
OFFLINE = ("fp8", "int8", "nvfp4", "mxfp4", "gptq", "awq")
DEFAULT = {"gptq-8-bits-act-order", "nf4-nested"}
STEM = "the river turns the valve and the valve turns the turbine "
CASES = [Case(STEM + word, 12) for word in ("steel", "42", "漢字")]
COLOUR = {"type": "regex", "value": "(north|south)-[0-9]{3}"}


def turns(names: list[str]) -> list[object]:
    """A number of shards for each name, all of 1, 2 and 4 in turn; few of them in the quick run."""
    return [
        pytest.param(name, shards, marks=() if name in DEFAULT else pytest.mark.full, id=name)
        for name, shards in zip(names, cycle((2, 1, 4)), strict=False)
    ]


def arguments(folder: Path, shards: int, *more: str) -> tuple[str, ...]:
    where = ("--model-id", str(folder), "--dtype", "float32", "--device", "cpu")
    pool = ("--kv-block-size", "8", "--max-batch-total-tokens", "512", "--max-total-tokens", "128")
    return (*where, *pool, "--num-shard", str(shards), *more)


async def check(server: Server, expect: Callable[[dict, Case], None]) -> None:
    """Of three texts of one beginning, two of them beside another and all beside a grammar."""
    async with aiohttp.ClientSession(server.url) as session:
        first = await generate(session, CASES[0])
        again, *rest, held = await asyncio.gather(
            *(generate(session, case) for case in CASES),
            generate(session, Case(STEM, 20), grammar=COLOUR, ignore_eos=False),
        )
        assert re.fullmatch(COLOUR["value"], held["generated_text"])
        for answer, case in zip((first, again, *rest), (CASES[0], *CASES), strict=True):
            expect(answer, case)
        assert again["details"]["cached_tokens"] >= 8


def as_reference(reference: ReferenceModel, near: float = 1e-3) -> Callable[[dict, Case], None]:
    return lambda answer, case: assert_equal(answer, case, reference, near)


def as_one_rank(folder: Path, **options: str) -> Callable[[dict, Case], None]:
    """What the shard alone says, of which tests/shard holds that it means the right numbers."""
    encode = Tokenizer.from_file(str(folder / "tokenizer.json")).encode
    shard = LocalShard(load_model(folder, **options))

    def expect(answer: dict, case: Case) -> None:
        expected = [shard.start(0, encode(case.text).ids)]
        expected += shard.decode([0], case.max_new_tokens - 1)[0]
        shard.release(0)
        assert [token["id"] for token in answer["details"]["tokens"]] == expected

    return expect


@pytest.mark.parametrize(("name", "shards"), turns([name for _, name in CHECKPOINTS]))
async def test_checkpoints(tmp_path: Path, name: str, shards: int) -> None:
    writer = next(writer for writer, each in CHECKPOINTS if each == name)
    folder, twin = make_checkpoint(tmp_path / "model", "llama3", **SIZES), tmp_path / "twin"
    writer.quantise_checkpoint(folder, name, twin)
    with running_server(tmp_path, *arguments(folder, shards)) as server:
        await check(server, as_reference(ReferenceModel(twin)))


@pytest.mark.parametrize(("name", "shards"), turns(list(ONLINE)))
async def test_made_while_loading(tmp_path: Path, name: str, shards: int) -> None:
    folder = make_checkpoint(tmp_path / "model", "llama3", **SIZES)
    with running_server(tmp_path, *arguments(folder, shards, "--quantize", name)) as server:
        await check(server, as_one_rank(folder, quantize=name))


@pytest.mark.parametrize("family", ["llama3", "mixtral"])
@pytest.mark.parametrize(("name", "shards"), turns(list(OFFLINE)))
async def test_made_by_penstock_quantize(
    tmp_path: Path, name: str, shards: int, family: str
) -> None:
    folder, output = make_checkpoint(tmp_path / "model", family, **SIZES), tmp_path / "made"
    text = tmp_path / "text.txt"
    text.write_text(f"{STEM}. " * 60)
    calibration = ("--calibration", str(text), "--group-size", "32", "--length", "64")
    options = ("--model-id", str(folder), "--output", str(output), "--format", name)
    more = calibration if name in ("gptq", "awq") else ()
    assert quantize([*options, *more, "--device", "cpu"]) == 0
    with running_server(tmp_path, *arguments(output, shards)) as server:
        await check(server, as_one_rank(output))


@pytest.mark.full
@pytest.mark.parametrize(
    ("kv", "scaled", "shards"),
    [("fp8_e4m3fn", False, 1), ("fp8_e5m2", False, 2), ("auto", True, 2), ("fp8", True, 4)],
)
async def test_a_kv_cache_in_fp8(tmp_path: Path, kv: str, scaled: bool, shards: int) -> None:
    """With scales of the checkpoint, which says with `auto` that it was made for such a cache."""
    folder = make_checkpoint(tmp_path / "model", "llama3")  # three layers, as there are scales
    twin = make_checkpoint(tmp_path / "twin", "llama3")
    if scaled:
        fp8_checkpoints.quantise_checkpoint(folder, "ct-channel", tmp_path / "dense")
        with_scales(folder, ("k_scale", "v_scale"), {"kv_cache_scheme": SCHEME})
        twin = tmp_path / "dense"
    dtype = torch.float8_e5m2 if kv == "fp8_e5m2" else torch.float8_e4m3fn
    reference = ReferenceModel(twin, dtype, *([scales_of] if scaled else []))
    with running_server(tmp_path, *arguments(folder, shards, "--kv-cache-dtype", kv)) as server:
        async with aiohttp.ClientSession(server.url) as session, session.get("/info") as answer:
            assert (await answer.json())["kv_cache_dtype"] == str(dtype).removeprefix("torch.")
        await check(server, as_reference(reference, near=2e-2))


@pytest.mark.parametrize("shards", [pytest.param(1, marks=pytest.mark.full), 2])
async def test_activations_in_fp8(
    tmp_path: Path, shards: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(integer_checkpoints.FORMATS, "packed-64", GROUPS_OF_64)
    folder, twin = make_checkpoint(tmp_path / "model", "llama3", **SIZES), tmp_path / "twin"
    integer_checkpoints.quantise_checkpoint(folder, "packed-64", twin)
    more = ("--quantize-activations", "fp8")
    with running_server(tmp_path, *arguments(folder, shards, *more)) as server:
        async with aiohttp.ClientSession(server.url) as session, session.get("/info") as answer:
            assert (await answer.json())["quantized_activations"] == "float8_e4m3fn"
        await check(server, as_reference(RoundedRows(twin, shards), near=2e-2))
        assert "activations in float8_e4m3fn" in server.log


REFUSED = [
    ("gptq", "--quantize awq", "--quantize awq contradicts quantization_config", "'gptq'"),
    ("awq", "--quantize gptq", "--quantize gptq contradicts quantization_config", "'awq'"),
    ("nf4", "--quantize eetq", "--quantize eetq contradicts quantization_config", "bitsandbytes"),
    ("block", "--quantize eetq", "--quantize eetq contradicts quantization_config", "'fp8'"),
    (
        None,
        "--quantize gptq",
        "--quantize gptq says what a checkpoint is",
        "no quantization_config",
    ),
    (
        "block",
        "--num-shard 4",
        "layers.0.mlp.down_proj has 96 inputs in blocks of 32",
        "into parts",
    ),
]


@pytest.mark.parametrize(("name", "option", "said", "too"), REFUSED)
@pytest.mark.full
def test_what_cannot_be_is_said_at_start(
    tmp_path: Path, name: str | None, option: str, said: str, too: str
) -> None:
    """A contradiction names both sides, and a cut the matrix."""
    folder = make_checkpoint(tmp_path / "model", "llama3")
    if name is not None:
        writer = next(writer for writer, each in CHECKPOINTS if each == name)
        writer.quantise_checkpoint(folder, name, tmp_path / "twin")
    with pytest.raises(AssertionError, match="ended early") as error:  # noqa: SIM117
        with running_server(tmp_path, *arguments(folder, 1, *option.split())):
            pass
    assert said in str(error.value) and too in str(error.value)
