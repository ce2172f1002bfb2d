"""The Triton kernels in half precision, on a real GPU, against float32 on the same inputs."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from penstock_kernels.fp8 import bits, saturated
from penstock_kernels.ops import (
    AS_MODEL,
    Act,
    Activation,
    AttentionSpec,
    CacheSpec,
    Norm,
    QKNorm,
    StepBatch,
)
from penstock_kernels.weight import Weight
from support.paged import sinks_of

pytestmark = pytest.mark.gpu

HALF = [torch.bfloat16, torch.float16]
FP8 = [torch.float8_e4m3fn, torch.float8_e5m2]


@pytest.fixture
def hopper() -> None:
    """For what needs Hopper's copies and products."""
    if torch.cuda.get_device_capability()[0] != 9:
        pytest.skip("not a Hopper GPU")


def difference(x: Tensor, reference: Tensor) -> float:
    """1 - 2 xy / (xx + yy): free of scale, 0 where equal."""
    a, b = x.double().flatten(), reference.double().flatten()
    return float(1 - 2 * (a @ b) / (a @ a + b @ b))


@pytest.mark.usefixtures("hopper")
@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("rows", [2, 8, 9, 31, 64])
@pytest.mark.parametrize(
    ("n", "k"), [(64, 128), (192, 640), (2048, 8192), (17024, 256), (4096, 4096)]
)
def test_linear_on_hopper(rows: int, n: int, k: int, dtype: torch.dtype) -> None:
    """One tile, fewer depths than stages, splits of unequal depth, more tiles than programs, half a
    ring for few rows."""
    from penstock_kernels.gpu.products.hopper_linear import hopper_linear, linear_config

    x = torch.randn(rows, k, device="cuda", dtype=dtype)
    weight = torch.randn(n, k, device="cuda", dtype=dtype) * k**-0.5
    config = linear_config(rows, n, k, False, True, 132)
    assert config is not None
    out = torch.full((config.splits, rows, n), torch.nan, device="cuda")
    if config.splits == 1:
        out = out[0].to(dtype)
    for dependent in (False, True):
        hopper_linear(x, Weight(weight), out.fill_(torch.nan), config, False, dependent)
        found = out.sum(0) if config.splits > 1 else out
        assert difference(found, x.float() @ weight.float().T) < 1e-5


@pytest.mark.usefixtures("hopper")
@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("rows", [2, 16, 33, 64, 65, 128])
@pytest.mark.parametrize(("n", "k"), [(64, 128), (14336, 512), (8192, 2048)])
def test_gated_stream_on_hopper(rows: int, n: int, k: int, dtype: torch.dtype) -> None:
    """Two programs a multiprocessor up to 64 rows, more turns than one above."""
    from penstock_kernels.gpu.products.hopper_linear import hopper_linear, linear_config

    x = torch.randn(rows, k, device="cuda", dtype=dtype)
    weight = torch.randn(2 * n, k, device="cuda", dtype=dtype) * k**-0.5
    gate, up = (x.float() @ weight.float().T).chunk(2, dim=1)
    config = linear_config(rows, 2 * n, k, True, False, 132)
    assert config is not None
    out = torch.full((rows, n), torch.nan, device="cuda", dtype=dtype)
    hopper_linear(x, Weight(weight), out, config, True, True)
    assert difference(out, torch.nn.functional.silu(gate) * up) < 2e-5


# Heads, KV heads, width, depth.
QKV = [
    (32, 8, 128, 4096),
    (32, 8, 64, 2048),
    (6, 6, 128, 1024),
    (5, 1, 64, 1024),
    (64, 8, 128, 1024),  # more tiles than multiprocessors
]


@pytest.mark.parametrize("stored", [None, *FP8], ids=str)
@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("rows", [2, 3, 8, 17, 32, 64])
@pytest.mark.parametrize(("heads", "kv_heads", "width", "k"), QKV)
@pytest.mark.usefixtures("hopper")
def test_qkv_in_one_launch_are_those_of_two(
    rows: int, heads: int, kv_heads: int, width: int, k: int, dtype: torch.dtype,
    stored: torch.dtype | None,
) -> None:  # fmt: skip
    """Bit for bit, queries and cache; and those are what float32 gives."""
    from penstock_kernels.gpu.products.problem import Epilogue
    from penstock_kernels.gpu.products.table import find
    from penstock_kernels.gpu.step.rope import RowPlacement, rope_and_write
    from penstock_kernels.gpu.step.rows import TritonRows
    from penstock_kernels.reference import rope

    torch.manual_seed(0)
    page, columns, slots = (16, 64)[width // 128], 6, 70
    count = (heads + 2 * kv_heads) * width
    x = torch.randn(rows, k, device="cuda", dtype=dtype)
    weight = torch.randn(count, k, device="cuda", dtype=dtype) * k**-0.5
    angle = torch.rand(columns * page, width // 2, device="cuda") * 6.28
    angles = torch.stack((angle.cos(), angle.sin()), dim=1)
    # Blocks in any order, with holes: no two rows share one, and one in three is nobody's.
    blocks = torch.randperm(slots * columns * 3 // 2, device="cuda")[: slots * columns]
    table = blocks.int().view(slots, columns)
    slot = torch.randperm(slots, device="cuda")[:rows]
    position = torch.randint(0, columns * page, (rows,), device="cuda")
    shape = (2, kv_heads, slots * columns * 3 // 2, page, width)
    before, spec = torch.randn(shape, device="cuda", dtype=dtype), AS_MODEL
    if stored is not None:
        before, spec = saturated(before, stored), CacheSpec(stored, 0.007, 0.3)  # some saturate
    expected = before.clone()
    rows_, matrix = Activation(x), Weight(weight)
    qkv = TritonRows().linear(rows_, matrix)
    placement = RowPlacement(slot, position, table, angles, spec.inverses)
    rope_and_write(qkv, expected, placement, AttentionSpec(heads, kv_heads, width, 1.0))
    wide = (x.float() @ weight.float().T).view(rows, -1, width)
    rope.rotate_(wide[:, : heads + kv_heads], *rope.rotation(angles, position))
    place = table[slot, position // page].long(), position % page
    written = bits(expected)[:, :, *place].permute(2, 0, 1, 3).reshape(rows, -1, width)
    assert difference(qkv[:, : heads * width], wide[:, :heads]) < 1e-5
    if stored is None:
        assert difference(written, wide[:, heads:]) < 1e-5
    else:
        keys, values = qkv.view(rows, -1, width)[:, heads:].chunk(2, 1)
        rope.rotate_(keys, *rope.rotation(angles, position))
        by_key, by_value = spec.inverses
        kv = torch.cat((keys.float() * by_key, values.float() * by_value), 1)
        # A sum that is rounded otherwise may be the next number in FP8.
        assert (bits(saturated(kv, stored)) != written).float().mean() < 1e-3
    launch = find(Epilogue.ROTATE, rows_, matrix, width)
    assert launch is not None
    for dependent in (False, True):
        cache = before.clone()
        query = launch(rows_, matrix, dependent, cache, placement)
        assert torch.equal(query, qkv[:, : heads * width])
        assert torch.equal(bits(cache), bits(expected))


def sharing_of(groups: list[tuple[int, int]], rows: int, tile_rows: int, page: int) -> Any:
    """groups: rows and shared blocks of each, from the first row on, as the shard cuts them."""
    from penstock_shard.steps.sharing import SharingTensors

    tensors = SharingTensors(max(2, rows), tile_rows, torch.device("cuda"))
    counts, blocks = np.array(groups, np.int64).reshape(-1, 2).T
    tensors.load(counts, blocks, page)
    return tensors.view(rows)


@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize("rows", [1, 5, 32, 64])
def test_dependent_launch_changes_no_bit_under_stress(rows: int, normed: bool) -> None:
    """A graph of layers whose kernels all depend on the one before, a thousand times over.

    Each replay reads other inputs; whoever reads too early finds those of the last replay. With a
    norm of queries and keys the rotation is a launch of its own.
    """
    from penstock_kernels.gpu.device import TritonDevice

    torch.manual_seed(0)
    hidden, wide, page, layers, most = 1024, 9216, 64, 6, 64
    spec = AttentionSpec(16, 4, 64, 64**-0.5)

    def weight(n: int, k: int) -> Weight:
        return Weight(torch.randn(n, k, device="cuda", dtype=torch.bfloat16) * k**-0.5)

    parameters = [
        (
            weight(24 * 64, hidden),
            weight(hidden, 1024),
            weight(2 * wide, hidden),
            weight(hidden, wide),
        )
        for _ in range(layers)
    ]
    norm = Norm(torch.ones(hidden, device="cuda", dtype=torch.bfloat16), 1e-5)
    head = weight(32768, hidden)
    of_head = Norm(torch.ones(64, device="cuda", dtype=torch.bfloat16), 1e-5)
    qk_norm = QKNorm(of_head, of_head) if normed else None
    angle = torch.rand(1024, 32, device="cuda") * 6.28
    angles = torch.stack((angle.cos(), angle.sin()), dim=1)
    table = torch.randperm(most * 16, device="cuda").int().view(most, 16) + 1
    slot = torch.arange(rows, device="cuda")
    position = torch.randint(128, 900, (rows,), device="cuda")
    sharing = None
    if rows > 1:
        table[:rows, :2] = table[0, :2]
        sharing = sharing_of([(rows, 2)], rows, 16, page)
    inputs = torch.randn(rows, hidden, device="cuda", dtype=torch.bfloat16)
    cache = torch.zeros(2, 4, most * 16 + 1, page, 64, device="cuda", dtype=torch.bfloat16)
    cache.normal_()

    def capture(dependent: bool) -> tuple[Any, ...]:
        device = TritonDevice([spec], (angles,), most, cache, dependent)
        caches = [cache.clone() for _ in range(layers)]
        kept = torch.empty(rows, 32768, device="cuda", dtype=torch.bfloat16)
        token = torch.empty(rows, device="cuda", dtype=torch.int64)

        def step() -> None:
            one = device.step(StepBatch(slot, position, table, rows, sharing=sharing))
            residual = inputs.clone()
            x = one.norm(residual, norm)
            for layer, (qkv, out, up, down) in enumerate(parameters):
                query = one.qkv(x, qkv, spec, caches[layer], qk_norm)
                x = one.attend(query, spec, caches[layer])
                x = one.linear_add_norm(x, out, residual, norm)
                x = one.gated(x, up, Act.SILU)
                x = one.linear_add_norm(x, down, residual, norm)
            device.argmax_into(one.linear(x, head), kept, token)

        step()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step()
        # The graph writes to the memory of all of these.
        return graph, kept, token, device, caches

    plain, dependent = capture(False), capture(True)
    differing = torch.zeros((), device="cuda", dtype=torch.int64)
    for _ in range(1000):
        inputs.normal_()
        position.random_(128, 900)  # another plan each time
        plain[0].replay()
        dependent[0].replay()
        differing += (plain[1] != dependent[1]).sum() + (plain[2] != dependent[2]).sum()
    assert int(differing) == 0
    assert all(torch.equal(*caches) for caches in zip(plain[4], dependent[4], strict=True))


@pytest.mark.usefixtures("hopper")
@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("rows", [1, 64, 127, 129, 300, 2085])
@pytest.mark.parametrize(("n", "k"), [(128, 64), (384, 320), (1408, 1024)])
def test_gated_linear_on_hopper(rows: int, n: int, k: int, dtype: torch.dtype) -> None:
    """Bands that are not full, tiles beyond the last row, fewer tiles than programs, many turns."""
    from penstock_kernels.gpu.products.hopper_gated import hopper_gated_linear

    x = torch.randn(rows, k, device="cuda", dtype=dtype)
    weight = torch.randn(2 * n, k, device="cuda", dtype=dtype) * k**-0.5
    gate, up = (x.float() @ weight.float().T).chunk(2, dim=1)
    found = torch.full((rows, n), torch.nan, device="cuda", dtype=dtype)
    hopper_gated_linear(x, weight, found)
    assert difference(found, torch.nn.functional.silu(gate) * up) < 1e-5


class Decode(NamedTuple):
    """Sizes of decode attention, and rows that share blocks."""

    heads: int
    kv_heads: int
    width: int
    page: int
    groups: list[tuple[int, int]]  # rows and shared blocks of each
    alone: int
    lengths: tuple[int, ...] = ()  # of those, over and over, where they matter
    scale: float = 0.09


DECODES = [
    Decode(32, 8, 128, 64, [(64, 15)], 0),
    Decode(32, 8, 128, 64, [(17, 31), (2, 1), (5, 3)], 9),
    Decode(32, 8, 128, 64, [], 1),
    Decode(32, 8, 128, 16, [(20, 5), (40, 61)], 4),
    Decode(32, 8, 64, 64, [(64, 15)], 0),
    Decode(32, 8, 64, 32, [(33, 7), (3, 50)], 12),
    Decode(32, 8, 64, 128, [(200, 7)], 56),
    Decode(28, 4, 128, 128, [(11, 3)], 5),
    Decode(8, 8, 64, 64, [(70, 4)], 2),
    Decode(64, 1, 128, 64, [(7, 4)], 3),
    Decode(5, 1, 128, 64, [(40, 20)], 3),
    # Ends in and between tiles of 64 and 128 keys, and nine items a program.
    Decode(32, 8, 128, 64, [], 300, (1, 63, 64, 65, 130)),
    Decode(32, 8, 64, 16, [], 12, (1, 63, 64, 65, 127, 128, 129, 191, 192, 193, 256, 1000)),
    Decode(8, 8, 128, 64, [(7, 2), (9, 3)], 8, (1, 63, 64, 65, 127, 128, 129, 1000)),
    Decode(32, 2, 128, 64, [(3, 2)], 8, (1, 63, 64, 65, 127, 128, 129, 1000)),
    Decode(32, 2, 64, 32, [(3, 2)], 8, (1, 63, 64, 65, 127, 128, 129, 1000)),
    Decode(32, 1, 128, 64, [(2, 2)], 4, (1, 64, 65, 1000)),
    # Scores of some hundreds: the largest ones of tiles are far apart.
    Decode(32, 8, 128, 64, [(5, 3)], 20, scale=9.0),
]


def decode_case(
    case: Decode, dtype: torch.dtype, stored: CacheSpec = AS_MODEL
) -> tuple[list[Tensor], Any, int]:
    """query, cache, table, slots and positions; NaN stands wherever no sequence has a token."""
    torch.manual_seed(0)
    heads, kv_heads, width, page, groups, alone, known, _ = case
    rows = sum(group[0] for group in groups) + alone
    own = torch.randint(1, 200, (rows,))
    shared = torch.zeros(rows, dtype=torch.int64)
    first = 0
    for count, blocks in groups:
        shared[first : first + count] = blocks
        own[first] = 1
        first += count
    own[first:] += torch.randint(0, 3000, (alone,))
    if known:
        own[first:] = torch.tensor(known * alone)[:alone]
    lengths = shared * page + own
    columns = int(lengths.max()) // page + 1
    table = torch.randperm(rows * columns).int().view(rows, columns) + 1
    first = 0
    for count, blocks in groups:
        table[first : first + count, :blocks] = table[first, :blocks].clone()
        first += count
    written = torch.zeros(rows * columns + 1, page, dtype=torch.bool)
    for row in range(rows):
        token = torch.arange(int(lengths[row]))
        written[table[row].long()[token // page], token % page] = True
    shape = (2, kv_heads, rows * columns + 1, page, width)
    cache = torch.randn(shape, device="cuda", dtype=dtype)
    if stored.dtype is None:
        cache[:, :, ~written.cuda()] = torch.nan
    else:
        by = torch.tensor(stored.inverses, device="cuda").view(2, 1, 1, 1, 1)
        cache = saturated(cache * by, stored.dtype)
        bits(cache)[:, :, ~written.cuda()] = 0x7F
    slots = torch.randperm(rows)
    by_slot = torch.empty_like(table)
    by_slot[slots] = table
    query = torch.randn(rows, heads + 3, width, device="cuda", dtype=dtype)[:, :heads]
    tensors = [query, cache, by_slot.cuda(), slots.cuda(), lengths.cuda() - 1]
    return tensors, groups, rows


def between() -> None:
    """A launch between plan and attention, which reads the plan before it waits for what is before
    it."""
    torch.zeros(1, device="cuda")


def decode_reference(
    tensors: list[Tensor],
    scale: float,
    window: int | None = None,
    stored: CacheSpec = AS_MODEL,
    sinks: Tensor | None = None,
) -> Tensor:
    """[rows, heads * width] float32, row by row."""
    query, cache, table, slots, positions = tensors
    kv_heads, page = cache.shape[1], cache.shape[3]
    rows = []
    for q, slot, last in zip(query.float(), slots.tolist(), positions.tolist(), strict=True):
        first = 0 if window is None else max(0, last + 1 - window)
        token = torch.arange(first, last + 1, device="cuda")
        found = bits(cache)[:, :, table[slot].long()[token // page], token % page]
        key, value = found.view(cache.dtype).float()
        key, value = key * stored.key_scale, value * stored.value_scale
        scores = torch.einsum("hgd,htd->hgt", q.view(kv_heads, -1, q.shape[1]), key) * scale
        if sinks is not None:
            scores = torch.cat((scores, sinks.view(kv_heads, -1, 1)), 2)
        weight = scores.softmax(2)[..., : len(token)]
        rows.append(torch.einsum("hgt,htd->hgd", weight, value).flatten())
    return torch.stack(rows)


@pytest.mark.usefixtures("hopper")
@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("case", DECODES, ids=str)
def test_decode_attention_on_hopper(case: Decode, dtype: torch.dtype) -> None:
    """Shared tokens and own ones, tiles that are full and not, pages of all sizes; the same bits
    each time, in a graph too."""
    from penstock_kernels.gpu.attention.hopper_decode import HopperDecode, supports_hopper_decode

    tensors, groups, rows = decode_case(case, dtype)
    query, cache, table, slots, positions = tensors
    assert supports_hopper_decode(query.device, cache, case.heads)
    attend = HopperDecode(rows, case.heads, case.kv_heads, case.width, query.device, True)
    attend.partial.fill_(torch.nan)
    attend.lse.fill_(torch.nan)
    out = query.new_full((rows, case.heads * case.width), torch.nan)
    sharing = sharing_of(groups, rows, attend.tile_rows, case.page)

    def run() -> None:
        plan = attend.plan(positions, slots, None, sharing)
        between()
        attend(query, cache, table, out, plan, case.scale)

    run()
    torch.cuda.synchronize()
    first = out.clone()
    assert bool(first.isfinite().all())
    torch.backends.cuda.matmul.allow_tf32 = False
    bound = 5e-6 if dtype == torch.bfloat16 else 2e-7
    assert difference(first, decode_reference(tensors, case.scale)) < bound
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    differing = torch.zeros((), device="cuda", dtype=torch.int64)
    for _ in range(50):
        out.fill_(torch.nan)
        graph.replay()
        differing += (out != first).sum()
    assert int(differing) == 0


@pytest.mark.usefixtures("hopper")
@pytest.mark.parametrize("window", [None, 130])
@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("fp8", FP8, ids=str)
@pytest.mark.parametrize("case", DECODES, ids=str)
def test_decode_attention_of_fp8_on_hopper(
    case: Decode, fp8: torch.dtype, dtype: torch.dtype, window: int | None
) -> None:
    """The same cases; the same bits each time."""
    from penstock_kernels.gpu.attention.hopper_decode import HopperDecode, supports_hopper_decode

    stored = CacheSpec(fp8, 0.04, 0.3)
    tensors, groups, rows = decode_case(case, dtype, stored)
    query, cache, table, slots, positions = tensors
    assert supports_hopper_decode(query.device, cache, case.heads)
    attend = HopperDecode(rows, case.heads, case.kv_heads, case.width, query.device, True)
    attend.partial.fill_(torch.nan)
    attend.lse.fill_(torch.nan)
    sharing = sharing_of(groups, rows, attend.tile_rows, case.page)
    found = []
    for _ in range(3):
        out = query.new_full((rows, case.heads * case.width), torch.nan)
        plan = attend.plan(positions, slots, None, sharing, window)
        between()
        attend(query, cache, table, out, plan, case.scale, stored)
        found.append(out)
    assert bool(out.isfinite().all())
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])
    torch.backends.cuda.matmul.allow_tf32 = False
    bound = 5e-6 if dtype == torch.bfloat16 else 2e-7
    assert difference(out, decode_reference(tensors, case.scale, window, stored)) < bound


@pytest.mark.usefixtures("hopper")
@pytest.mark.parametrize("window", [None, 130])
@pytest.mark.parametrize("stored", [AS_MODEL, CacheSpec(FP8[0], 0.04, 0.3)], ids=["half", "fp8"])
@pytest.mark.parametrize("case", [*DECODES[::2], Decode(64, 8, 64, 64, [(30, 9)], 40)], ids=str)
def test_decode_with_sinks_on_hopper(case: Decode, stored: CacheSpec, window: int | None) -> None:
    """The same bits each time, in a graph too. The last case is gpt-oss's."""
    from penstock_kernels.gpu.attention.hopper_decode import HopperDecode

    tensors, groups, rows = decode_case(case, torch.bfloat16, stored)
    query, cache, table, slots, positions = tensors
    attend = HopperDecode(rows, case.heads, case.kv_heads, case.width, query.device, True)
    attend.partial.fill_(torch.nan)
    attend.lse.fill_(torch.nan)
    sharing = sharing_of(groups, rows, attend.tile_rows, case.page)
    sinks = sinks_of(case.heads, "cuda")
    out = query.new_full((rows, case.heads * case.width), torch.nan)

    def run() -> None:
        plan = attend.plan(positions, slots, None, sharing, window)
        attend(query, cache, table, out, plan, case.scale, stored, sinks)

    run()
    first = out.clone()
    torch.backends.cuda.matmul.allow_tf32 = False
    assert difference(first, decode_reference(tensors, case.scale, window, stored, sinks)) < 1e-5
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    out.fill_(torch.nan)
    graph.replay()
    assert torch.equal(out, first)


@pytest.mark.usefixtures("hopper")
@pytest.mark.parametrize("window", [1, 63, 130, 4096])
@pytest.mark.parametrize("case", DECODES[::3], ids=str)
def test_decode_in_a_window_on_hopper(case: Decode, window: int) -> None:
    from penstock_kernels.gpu.attention.hopper_decode import HopperDecode

    tensors, _, rows = decode_case(case, torch.bfloat16)
    query, cache, table, slots, positions = tensors
    attend = HopperDecode(rows, case.heads, case.kv_heads, case.width, query.device, True)
    out = query.new_full((rows, case.heads * case.width), torch.nan)
    plan = attend.plan(positions, slots, None, None, window)
    between()
    attend(query, cache, table, out, plan, case.scale)
    assert difference(out, decode_reference(tensors, case.scale, window)) < 2e-5


@pytest.mark.parametrize("rows", [1, 3, 20, 70])
@pytest.mark.parametrize(("heads", "width"), [(32, 128), (28, 128), (5, 128), (32, 64), (7, 64)])
def test_merge_on_hopper_is_that_of_all_cards(rows: int, heads: int, width: int) -> None:
    """More parts than are loaded at once, one, and none."""
    from penstock_kernels.gpu.attention import decode_merge, hopper_merge

    torch.manual_seed(0)
    parts = torch.randint(0, 40, (rows,), device="cuda", dtype=torch.int32)
    parts[:3] = torch.tensor([33, 1, 8], device="cuda")[:rows]
    first = parts.cumsum(0) - parts
    spans = torch.stack((first, parts, parts), 1).int().contiguous()
    partial = torch.randn(int(parts.sum()), heads, width, device="cuda")
    lse = torch.randn(int(parts.sum()), heads, device="cuda") * 8
    results = []
    for merge in (decode_merge.merge, hopper_merge.merge):
        out = torch.full((rows, heads * width), torch.nan, device="cuda")
        merge(partial, lse, spans, out, rows, width, False)
        assert torch.equal(out.isfinite().all(1), parts > 1)
        assert torch.equal(out.isnan().all(1), parts <= 1)
        results.append(out[parts > 1])
    assert difference(*results) < 1e-10
    weights = lse[:33].mul(0.6931471805599453).softmax(0)
    expected = (weights[:, :, None] * partial[:33]).sum(0).flatten()
    assert difference(results[1][0], expected) < 1e-10


@pytest.mark.usefixtures("hopper")
@pytest.mark.parametrize("live", [0, 1, 9, 40])
def test_decode_rows_that_do_not_count_on_hopper(live: int) -> None:
    """The rest of a captured step's rows are left alone, whatever stands there."""
    from penstock_kernels.gpu.attention.hopper_decode import HopperDecode

    tensors, groups, rows = decode_case(Decode(32, 8, 128, 64, [(8, 6)], 32), torch.bfloat16)
    query, cache, table, slots, positions = tensors
    attend = HopperDecode(rows, 32, 8, 128, query.device)
    out = query.new_full((rows, 32 * 128), torch.nan)
    sharing = sharing_of(groups if live >= 8 else [], rows, attend.tile_rows, 64)
    count = torch.tensor([live], dtype=torch.int32, device="cuda")
    plan = attend.plan(positions, slots, count, sharing)
    between()
    attend(query, cache, table, out, plan, 0.09)
    assert bool(out[live:].isnan().all())
    if live:
        assert difference(out[:live], decode_reference(tensors, 0.09)[:live]) < 2e-5


def test_kernels_are_compiled_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing runs before, and nothing is compiled after: a norm and, where it can, a stream."""
    from triton import knobs

    from penstock_kernels.gpu.launch.ahead import compile_only
    from penstock_kernels.gpu.step.norm import normalise
    from penstock_kernels.gpu.step.rows import TritonRows

    compiled: list[str] = []

    def listen(**found: Any) -> None:
        compiled.append(found["src"].name)

    monkeypatch.setattr(knobs.compilation, "listener", listen)
    width = 1408  # of no other test
    x = torch.randn(3, width, device="cuda", dtype=torch.bfloat16)
    weight, norm = Weight(x.new_ones(192, width)), Norm(x.new_ones(width), 0.125)
    out = torch.full_like(x, 7)
    with compile_only():
        normalise(x, norm, out=out)
        TritonRows().linear(Activation(x), weight)
    torch.cuda.synchronize()
    assert compiled and (out == 7).all()
    compiled.clear()
    normalise(x, norm, out=out)
    product = TritonRows().linear(Activation(x), weight)
    assert not compiled
    assert difference(out, x / x.float().square().mean(1, keepdim=True).add(0.125).sqrt()) < 1e-4
    assert difference(product, x.float() @ weight.data.float().T) < 1e-4
