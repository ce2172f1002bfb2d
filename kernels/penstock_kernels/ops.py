"""What a model asks of a device: the operations of one step, and what describes its layers to them.

`Device.step` is called once a step and does what the layers of that step have in common. The
operations of the `Step` that it returns are those of a transformer block. Two devices, one meaning:
`reference.device.TorchDevice` is the CPU's path and the reference of `gpu.device.TritonDevice`.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from penstock_kernels.draw import SamplingBatch
from penstock_kernels.penalties import Penalties
from penstock_kernels.weight import Weight

if TYPE_CHECKING:
    from penstock_kernels.experts import Experts


class NormKind(enum.Enum):
    """How a row is normalised."""

    RMS = "rms"  # x / rms(x), rounded to the type of x, times the weight
    RMS_ONE = "rms_one"  # x / rms(x) times (1 + weight), rounded at the end (Gemma)
    LAYER = "layer"  # (x - mean) / deviation times the weight, plus the bias


@dataclass(frozen=True, slots=True, eq=False)
class Norm:
    """A normalisation of rows."""

    weight: Tensor  # [d]
    eps: float
    kind: NormKind = NormKind.RMS
    bias: Tensor | None = None  # [d], of LAYER


class Act(enum.Enum):
    """An activation function."""

    SILU = "silu"
    GELU = "gelu"  # by the error function
    GELU_TANH = "gelu_tanh"  # its approximation by tanh
    RELU = "relu"
    RELU2 = "relu2"  # its square
    # Of gates, at most LIMIT: gate * sigmoid(ALPHA * gate). What it multiplies is up + 1, with up
    # within LIMIT (gpt-oss).
    CLAMPED_SWIGLU = "clamped_swiglu"


ALPHA, LIMIT = 1.702, 7.0  # of CLAMPED_SWIGLU


@dataclass(frozen=True, slots=True)
class CacheSpec:
    """How the keys and values of a layer stand in the cache.

    In FP8 a key is the stored number times `key_scale`. What is too large for FP8 is stored as the
    largest number there is.
    """

    dtype: torch.dtype | None = None  # None: the model's
    key_scale: float = 1.0
    value_scale: float = 1.0

    @property
    def inverses(self) -> tuple[float, float]:
        """What keys and values are multiplied with before they are stored."""
        return 1 / self.key_scale, 1 / self.value_scale


AS_MODEL = CacheSpec()


@dataclass(frozen=True, slots=True)
class AttentionSpec:
    """One kind of attention layer on one rank."""

    heads: int
    kv_heads: int
    width: int  # of a head
    scale: float  # of the products of queries and keys
    window: int | None = None  # tokens that a row sees, itself included; None: all
    rope: int | None = 0  # which of the device's rotary tables; None: no rotation
    soft_cap: float | None = None  # of those products: cap * tanh(product / cap); None: as they are
    rotary: int | None = None  # leading elements of a head that are rotated; None: all
    interleaved: bool = False  # neighbours are rotated against each other, not halves of those
    cache: CacheSpec = AS_MODEL

    @property
    def shape(self) -> tuple[int, int, int]:
        """Heads, KV heads and width."""
        return self.heads, self.kv_heads, self.width

    @property
    def rotates_halves(self) -> bool:
        """Whether whole heads are rotated, and half against half."""
        return self.rope is not None and self.rotary is None and not self.interleaved

    @property
    def rotated_heads(self) -> int:
        """Query and key heads."""
        return self.heads + self.kv_heads


@dataclass(frozen=True, slots=True, eq=False)
class QKNorm:
    """Norms of queries and keys by root mean squares, before the rotation.

    Of each head by itself: weights are [width]. Or of all heads together: weights are
    [heads * width] and [kv_heads * width], and `mean` makes the means of this rank's squares,
    [n, 2] float32 (queries, keys), those of all ranks. It may overwrite them.
    """

    query: Norm
    key: Norm
    mean: Callable[[Tensor], Tensor] | None = None  # None: of each head


@dataclass(frozen=True, slots=True)
class Activation:
    """Rows on their way into products.

    Whoever makes them may quantise them for the weight that reads them next (`to`); the rows
    themselves are kept for readers that want those. Or that reader normalises them itself: then `x`
    is the residual, and holds until something is added to that.
    """

    x: Tensor  # [n, k], of the model's type
    quantised: Tensor | None = None  # [n, k] float8_e4m3fn
    scale: Tensor | None = None  # [n, 1] float32, of `quantised`
    norm: Norm | None = None  # which rows have before them; None: they went through it

    def select(self, rows: Tensor) -> Activation:
        """Some of the rows; whoever reads them quantises them. rows: [m] int64."""
        return Activation(self.x.index_select(0, rows), norm=self.norm)


@dataclass(frozen=True, slots=True)
class Sharing:
    """Which decode rows share cached blocks, on the device. Rows of a tile are neighbours.

    tile_of_row: [rows] int32, -1: shares nothing. tiles: [count, 3] int32: first row, rows and
    shared tokens (whole blocks) of each tile, as many as a power of two; unused ones have no rows.
    """

    tile_of_row: Tensor
    tiles: Tensor


@dataclass(frozen=True, slots=True)
class EagerPlan:
    """What the host knows of the sequences of a step that is not captured.

    sequences: [m] int64 on the device, the slot of each sequence; context: tokens of each sequence
    before its first row; queries: its rows.
    """

    sequences: Tensor
    context: NDArray[np.int64]
    queries: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class StepBatch:
    """The rows of a step: one for each decoding sequence, then the tokens of the chunks.

    slot, position: [n] int64; block_table: [slots, width] int32, of all slots. A captured step has
    no `plan`, since it must not depend on what the host knows: what differs from step to step
    stands on the device. pieces: [count, 2] int32, first row and rows of each piece of a chunk, no
    rows where there is none; live: [1] int32, how many of the `decode_rows` count; sharing: what
    decode rows may read together. It changes no result, and a device may ignore it.
    """

    slot: Tensor
    position: Tensor
    block_table: Tensor
    decode_rows: int
    plan: EagerPlan | None = None
    pieces: Tensor | None = None
    live: Tensor | None = None
    sharing: Sharing | None = None


class Step(Protocol):
    """The operations of a model over the rows of one step.

    to: the weight that reads the result next, which decides whether it is quantised.
    """

    def norm(self, x: Tensor, norm: Norm | None, to: Weight | None = None) -> Activation:
        """The rows of x [n, d], normalised; None: as they are."""

    def add_norm(
        self, x: Tensor, residual: Tensor, norm: Norm | None, to: Weight | None = None
    ) -> Activation:
        """Add x to the residual, in place, and normalise the sum. Both [n, d]."""

    def linear(self, x: Activation, weight: Weight) -> Tensor:
        """x W^T + b. Returns [n, outputs]."""

    def linear_add_norm(
        self,
        x: Activation,
        weight: Weight,
        residual: Tensor,
        norm: Norm | None,
        to: Weight | None = None,
    ) -> Activation:
        """`add_norm` of `linear`."""

    def gated(
        self, x: Activation, weight: Weight, act: Act, to: Weight | None = None
    ) -> Activation:
        """act(gate) * up of x W^T + b, where W holds the gate's rows, then those of up."""

    def activated(
        self, x: Activation, weight: Weight, act: Act, to: Weight | None = None
    ) -> Activation:
        """act(x W^T + b)."""

    def experts(self, x: Activation, router: Weight, experts: Experts) -> Tensor:
        """The sum of each row's experts times their weights, of which the router gives the logits:
        router [experts, hidden]. Returns [n, hidden]."""

    def qkv(
        self,
        x: Activation,
        weight: Weight,
        spec: AttentionSpec,
        cache: Tensor,
        norm: QKNorm | None = None,
    ) -> Tensor:
        """Multiply, norm and rotate, store keys and values.

        weight: queries, keys, values below one another, [(heads + 2 * kv_heads) * width, k];
        cache: one layer's, [2, kv_heads, blocks, block_size, width], of the model's type or FP8.
        Returns the queries, [n, heads, width].
        """

    def attend(
        self,
        query: Tensor,
        spec: AttentionSpec,
        cache: Tensor,
        to: Weight | None = None,
        sinks: Tensor | None = None,
    ) -> Activation:
        """Each row's attention over its own sequence, up to and including itself. `qkv` of the same
        layer comes before it.

        query: [n, heads, width]; sinks: [heads] float32, a score of each head that stands in the
        denominator of its softmax, as that of a token whose value is zero. Returns
        [n, heads * width].
        """

    def each(self, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """function(x), of one of torch's that takes each element by itself. x may be changed."""


class Device(Protocol):
    """Where models run."""

    def step(self, batch: StepBatch) -> Step:
        """What the layers of a step have in common is done here, once."""

    def copy_blocks(self, cache: Tensor, source: Tensor, target: Tensor) -> None:
        """cache[..., target[i], :, :] = cache[..., source[i], :, :], in place; no target is a
        source.

        cache: [layers, 2, kv_heads, blocks, block_size, width]; source, target: [n] int64.
        """

    def clear_blocks(self, cache: Tensor, blocks: NDArray[np.integer]) -> None:
        """Prepare blocks for a sequence, if attention here reads behind the end of one: what an
        earlier sequence left there may be NaN, and 0 times NaN is NaN.

        cache: as in `copy_blocks`; blocks: [n], ids.
        """


class GraphDevice(Device, Protocol):
    """A device whose steps can be captured: what they differ in stands on it."""

    piece_rows: int  # the most rows of a piece
    tile_rows: int  # decode rows that can read shared tokens together

    def pieces(
        self, queries: NDArray[np.int64], context: NDArray[np.int64], first_row: int
    ) -> NDArray[np.int32]:
        """[count, 2]: first row and rows of each piece, in the order that suits the device.

        queries: rows of each chunk, which follow one another from `first_row` on; context: tokens
        before each chunk.
        """

    def read_slots(
        self,
        slots: Tensor,
        last_tokens: Tensor,
        lengths: Tensor,
        given: tuple[Tensor, Tensor] | None,
    ) -> tuple[Tensor, Tensor]:
        """Token and position of each row; see `slots.read_slots`."""

    def advance_slots(
        self,
        slots: Tensor,
        positions: Tensor,
        ends: Tensor | None,
        tokens: Tensor | None,
        last_tokens: Tensor,
        lengths: Tensor,
    ) -> None:
        """Move slots on; see `slots.advance_slots`."""

    def argmax_into(self, logits: Tensor, kept: Tensor, token: Tensor) -> None:
        """Keep the logits and each row's most likely token.

        logits, kept: [n, vocabulary]; token: [n] int64.
        """


class Sampler(Protocol):
    """What becomes of logits.

    Where results must not depend on the rows of others: rows_alone: what torch computes of several
    rows is to be computed of one at a time; draws_alone: so are draws and penalties.
    """

    rows_alone: bool
    draws_alone: bool

    def draw(self, logits: Tensor, draws: SamplingBatch) -> Tensor:
        """See `draw.draw`."""

    def penalise(self, logits: Tensor, penalties: Penalties) -> Tensor:
        """See `penalties.penalise`."""
