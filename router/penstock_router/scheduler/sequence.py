"""A sequence, and what there is of it while it runs."""

from __future__ import annotations

import enum
import sys
from array import array
from typing import TYPE_CHECKING

from penstock_router.request import GenerationRequest, Listener

if TYPE_CHECKING:
    from penstock_router.scheduler.prefix_cache import Node


class State(enum.Enum):
    """Where a sequence is. Only `Queue`, `AdmissionPolicy` and `Lifecycle` change it."""

    WAITING = enum.auto()  # in the queue
    SETTLING = enum.auto()  # preempted; results of its last steps are still to come
    RUNNING = enum.auto()  # is in the batch
    ENDED = enum.auto()


class Sequence:
    """The tokens of one request: its prompt and what was generated so far."""

    __slots__ = (
        "admitted_at",
        "arrival",
        "cached_tokens",
        "expect_run_until",
        "first_token_at",
        "generated",
        "grammar",
        "id",
        "in_flight",
        "listener",
        "opening",
        "order",
        "request",
        "state",
        "to_compute",
        "tokens",
    )

    def __init__(
        self,
        id: int,
        request: GenerationRequest,
        listener: Listener | None,
        arrival: float,
        order: float,
        grammar: int = 0,
        opening: list[int] | None = None,
    ) -> None:
        self.id = id
        self.request = request
        self.listener = listener
        self.arrival = arrival
        self.order = order  # smaller runs first and is preempted last
        self.tokens = bytearray(array("I", request.prompt))  # "i" takes 16 us for 1,024, "I" 6
        # Tokens that its grammar forces in front of all others: computed with the prompt, and
        # delivered with the first token that is chosen.
        self.opening = opening or []
        self.tokens += array("I", self.opening)
        self.generated = len(self.opening)  # tokens known to be generated
        self.grammar = grammar  # as the shards call the request's; 0: it has none
        self.expect_run_until = 0  # so many tokens are generated
        self.in_flight = 0  # tokens planned, but not known yet
        self.state = State.WAITING
        self.to_compute = 0  # tokens, as expected when it last joined the queue
        self.cached_tokens = 0  # of the prompt, at the first admission
        self.admitted_at: float | None = None
        self.first_token_at: float | None = None

    @property
    def length(self) -> int:
        """Tokens known: prompt and generated."""
        return len(self.tokens) >> 2

    @property
    def prompt_length(self) -> int:
        """Tokens of its prompt."""
        return self.length - self.generated

    @property
    def last_token(self) -> int:
        """The last one known."""
        return int.from_bytes(self.tokens[-4:], "little")

    @property
    def delivered(self) -> int:
        """Tokens that results have brought."""
        return self.generated - len(self.opening)

    @property
    def unplanned(self) -> int:
        """New tokens that no step has been planned for yet."""
        return self.request.max_new_tokens - self.generated - self.in_flight

    @property
    def wants_prompt_logprobs(self) -> bool:
        """Whether log-probabilities of its prompt are wanted and not known."""
        return self.request.prompt_logprobs and not self.generated

    @property
    def reusable(self) -> int:
        """How many of its tokens, at most, need not be computed because the cache has them."""
        if self.wants_prompt_logprobs:
            return min(self.length - 1, self.request.prompt_logprobs_start)
        return self.length - 1

    def extend(self, tokens: list[int]) -> None:
        """Take in tokens that were in flight."""
        self.tokens += array("I", tokens)
        self.generated += len(tokens)
        self.in_flight -= len(tokens)

    def pop_opening(self) -> list[int]:
        """What no result has brought, to be delivered now."""
        opening, self.opening = self.opening, []
        return opening


class RunningSequence:
    """A sequence from its admission until it ends or is preempted. Of its last steps results may
    come later: it has given its slot back then.

    0 ………… cached ………… computed ………… planned ………… target
    └ tree and copy ┘  └ results are in ┘ └ in flight ┘  └ to be planned
    """

    __slots__ = (
        "blocks",
        "cached",
        "certain",
        "certain_from",
        "computed",
        "copy",
        "node",
        "open",
        "place",
        "planned",
        "private",
        "sequence",
        "slot",
        "table",
        "table_depth",
        "target",
    )

    def __init__(
        self,
        sequence: Sequence,
        slot: int,
        node: Node,
        blocks: list[int],
        cached: int,
    ) -> None:
        self.sequence = sequence
        self.slot: int | None = slot  # None once given back, before the last results are in
        self.place = slot  # as results name it, then too
        self.node = node  # deepest node of the prefix tree that holds its tokens; pinned
        self.blocks = blocks  # block table
        self.private: set[int] = set()  # those of `blocks` that are not in the tree
        self.cached = cached  # tokens found in the cache at admission
        # Where they end within a block: the block that holds the last of them, and its own block
        # that starts as a copy of it.
        self.copy: tuple[int, int] | None = None
        self.computed = cached  # tokens whose KV is known to be computed
        self.planned = cached  # tokens whose KV some planned step computes
        self.target = sequence.length  # tokens to prefill before decoding starts
        self.open = True
        # Tokens that are known before they are computed, until the next plan, and the place of the
        # first of them.
        self.certain: list[int] = []
        self.certain_from = 0
        # The block table as it was at admission, as one integer of 32 bits a block.
        self.table = 0
        self.table_depth = 0

    def note_table(self) -> None:
        """Remember the block table as a number that can be compared at once."""
        self.table = int.from_bytes(array("I", self.blocks).tobytes(), sys.byteorder)
        self.table_depth = len(self.blocks)

    @property
    def held_slot(self) -> int:
        """Its slot, which it must still have."""
        assert self.slot is not None
        return self.slot

    @property
    def prefilling(self) -> bool:
        """Whether some of its prompt is in no plan yet."""
        return self.planned < self.target

    @property
    def left(self) -> int:
        """Tokens of its prompt that no step has been planned for yet."""
        return self.target - self.planned

    @property
    def decoding(self) -> bool:
        """Whether it takes part in the next decode step."""
        return self.open and self.planned >= self.target and self.sequence.unplanned > 0
