"""A shard's model without tensors: what a KV cache holds and which token follows, by hashing.

The token after a prefix is a hash of that whole prefix, so the output of a request is a pure
function of its prompt and sampling parameters, however a router batches, preempts or caches it.
`expected_tokens` is the straight loop to compare with. For each position of each KV block the model
remembers the hash of the prefix that was written there, so a wrongly shared or stale block is an
error at the step that would have read it, not a strange word in an answer.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from penstock_proto.shard_pb2 import (
    Admission,
    PromptLogprobs,
    Refusal,
    Sampling,
    StepCommand,
    StepError,
    StepResult,
    TopTokens,
    WarmupRequest,
    WarmupResponse,
)

MASK = (1 << 64) - 1


def mix(state: int, value: int) -> int:
    """One round of a 64-bit hash chain (the constants of splitmix64)."""
    state = ((state ^ value) + 0x9E3779B97F4A7C15) & MASK
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    return state ^ (state >> 27)


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeModelConfig:
    """What the fake pretends to have loaded."""

    vocab_size: int = 1000
    block_size: int = 16  # tokens
    num_blocks: int = 1024  # what "memory" holds, scratch block 0 included
    max_position_embeddings: int = 8192  # tokens
    eos_token: int | None = None  # never sampled but by `eos_every`
    eos_every: int = 0  # one prefix in so many is followed by eos_token; 0: none is
    forced_every: int = 0  # one prefix in so many of what has a grammar begins a run; 0: none does
    nan_every: int = 0  # the last token of one prefix in so many has NaN for its KV; 0: none has
    memory_rows: int = 0  # a step of more rows does not fit in memory; 0: all do

    def __post_init__(self) -> None:
        if self.eos_every and self.eos_token is None:
            raise ValueError("eos_every needs eos_token")


def next_token(prefix_hash: int, sampling: Sampling, config: FakeModelConfig) -> int:
    """The token that follows a prefix. Greedy ignores the seed, as a real model does."""
    value = mix(prefix_hash, sampling.seed if sampling.temperature > 0 else 0)
    if config.eos_every and value % config.eos_every == 0:
        assert config.eos_token is not None
        return config.eos_token
    token = (value >> 20) % config.vocab_size
    return (token + 1) % config.vocab_size if token == config.eos_token else token


def has_nan(prefix_hash: int, config: FakeModelConfig) -> bool:
    """Whether the KV of a prefix's last token holds NaN: then so do the logits of all that read
    it."""
    return bool(config.nan_every) and mix(prefix_hash, 0xDEAD) % config.nan_every == 0


def forced_run(prefix_hash: int, sampling: Sampling, config: FakeModelConfig) -> list[int]:
    """The run of tokens that a grammar forces behind a prefix: what follows it in any case, as far
    as none of it has NaN; else nothing."""
    value = mix(prefix_hash, 0xF0)
    if not config.forced_every or value % config.forced_every:
        return []
    run: list[int] = []
    for _ in range(2 + (value >> 20) % 9):
        token = next_token(prefix_hash, sampling, config)
        prefix_hash = mix(prefix_hash, token)
        if has_nan(prefix_hash, config):
            break
        run.append(token)
    return run if len(run) > 1 else []


def logprob_of(prefix_hash: int, token: int) -> float:
    """A made-up log-probability in [-8, 0), exact in float32."""
    return -(1 + mix(prefix_hash, token) % 1024) / 128


def rank_of(prefix_hash: int, token: int) -> int:
    """A made-up rank."""
    return 1 + mix(token, prefix_hash) % 1024


def expected_tokens(
    prompt: list[int] | tuple[int, ...],
    count: int,
    config: FakeModelConfig,
    sampling: Sampling | None = None,
) -> list[int]:
    """What a request must generate: at most `count` tokens, the EOS token being the last. Fewer
    where it is refused."""
    state, refused, tokens = 0, False, []
    for token in prompt:
        state = mix(state, token)
        refused |= has_nan(state, config) or token >= config.vocab_size
    while len(tokens) < count and not refused:
        tokens.append(next_token(state, sampling or Sampling(), config))
        if tokens[-1] == config.eos_token:
            break
        state = mix(state, tokens[-1])
        refused = has_nan(state, config)
    return tokens


class BadCommand(Exception):
    """The router broke the protocol; the sentence says how."""


def require(condition: bool, message: str) -> None:
    """Raises BadCommand with this sentence unless the condition holds."""
    if not condition:
        raise BadCommand(message)


def from_bytes(data: bytes, what: str) -> list[int]:
    """The integers of a `bytes` field: little-endian int32."""
    require(len(data) % 4 == 0, f"{what} has {len(data)} bytes, not a multiple of 4")
    values: list[int] = np.frombuffer(data, dtype="<i4").tolist()
    return values


def check_sampling(sampling: Sampling, what: str) -> None:
    """Refuses values that no model could sample with, above all a forgotten neutral value."""
    require(sampling.temperature >= 0, f"{what}: temperature {sampling.temperature}")
    for name in ("top_p", "typical_p"):
        value = getattr(sampling, name)
        require(0 < value <= 1, f"{what}: {name} {value}, must be in (0, 1]")
    require(0 <= sampling.min_p <= 1, f"{what}: min_p {sampling.min_p}")
    penalty = sampling.repetition_penalty
    require(penalty > 0, f"{what}: repetition_penalty {penalty}, must be > 0")
    bias = sampling.logit_bias
    require(len(bias.token) == len(bias.value), f"{what}: tokens and values of logit_bias differ")


class Slot:
    """A sequence in its slot. `computed` tokens have their KV in `blocks`."""

    def __init__(self, admission: Admission) -> None:
        self.number = admission.slot
        request = admission.request
        self.tokens = from_bytes(request.prompt, "prompt")
        self.generated = len(admission.generated) // 4
        self.tokens += from_bytes(admission.generated, "generated")
        self.prompt_length = len(self.tokens)  # what chunks must compute, regenerated part included
        self.grammar = admission.grammar
        self.run: list[int] = []  # forced, and not generated yet
        self.computed = admission.cached
        self.blocks: list[int] = []
        self.sampling = request.sampling
        self.prompt_logprobs = request.prompt_logprobs
        self.prompt_top_n = request.prompt_top_n
        self.prompt_start = request.prompt_logprobs_start
        self.refused = False  # at admission: nothing of it is computed
        self.read = 0  # tokens whose KV was looked at for NaN
        self.broken = False  # there was some
        self.hashes: list[int] = []  # hashes[p]: of tokens[0..p]
        for token in self.tokens:
            self.hashes.append(mix(self.hashes[-1] if self.hashes else 0, token))

    @property
    def prefilled(self) -> bool:
        """Its last known token was sampled here, so it may decode."""
        return len(self.tokens) > self.prompt_length

    def look_for_nan(self, config: FakeModelConfig) -> bool:
        """Whether its last computed token reads NaN."""
        fresh = self.hashes[self.read : self.computed]
        self.broken |= any(has_nan(prefix, config) for prefix in fresh)
        self.read = self.computed
        return self.broken and not self.refused

    def go_on(self, tokens: list[int]) -> None:
        """Take tokens in place of decoding: the last one, and some of what is forced."""
        self.hashes = self.hashes[: self.computed]
        self.tokens = self.tokens[: self.computed]
        for token in tokens:
            self.append(token)
        self.prompt_length = len(self.tokens)
        self.prompt_logprobs = False
        self.generated += len(tokens) - 1
        self.run = []

    def append(self, token: int) -> None:
        self.tokens.append(token)
        self.hashes.append(mix(self.hashes[-1], token))


class FakeShardModel:
    """Runs step commands, refusing those that break the protocol of `shard.proto`.

    Before `warmup` there are no limits on slots, sequence length and prefill tokens, so that tests
    of a pure scheduler need no ceremony.
    """

    def __init__(self, config: FakeModelConfig | None = None) -> None:
        self.config = config or FakeModelConfig()
        self.limits: WarmupRequest | None = None
        self.num_blocks = self.config.num_blocks
        self.slots: dict[int, Slot] = {}
        self.decode: list[int] = []
        self.next_step = 1
        self.failed = False
        self._kv: dict[int, list[int | None]] = {}  # block -> hash of the prefix at each offset
        self._holders: Counter[int] = Counter()  # block -> live slots with it in their tables

    def warmup(self, request: WarmupRequest) -> WarmupResponse:
        """Takes the limits. Raises BadCommand when more KV is asked than `num_blocks` hold."""
        self.limits = WarmupRequest()
        self.limits.CopyFrom(request)
        if request.max_batch_total_tokens:
            wanted = -(-request.max_batch_total_tokens // self.config.block_size) + 1
            room = self.config.num_blocks
            require(wanted <= room, f"max_batch_total_tokens needs {wanted} blocks of {room}")
            self.num_blocks = wanted
        return WarmupResponse(
            num_blocks=self.num_blocks, prefill_seconds=0.001, decode_seconds=0.0001
        )

    def run(self, command: StepCommand) -> list[StepResult]:
        """One result a step; the last one carries the error if there was one."""
        require(not self.failed, "a command after the step that failed")
        results: list[StepResult] = []
        self._refused: list[Refusal] = []  # to be told with the next result
        try:
            self._apply(command)
            for repeat in range(command.repeat):
                results.append(self._step(command, self.next_step, first=repeat == 0))
                self.next_step += 1
        except BadCommand as error:
            self.failed = True
            problem = StepError(
                kind=StepError.BAD_COMMAND, message=f"step {self.next_step}: {error}"
            )
            results.append(StepResult(step=self.next_step, error=problem))
        return results

    # ---- the parts of a command, in their order

    def _apply(self, command: StepCommand) -> None:
        self._check_shape(command)
        for number in command.release:
            slot = self._slot(number, "release")
            for block in slot.blocks:
                self._holders[block] -= 1
            del self.slots[number]
        self._copy(command)
        for admission in command.admit:
            self._admit(admission)
        for number, block in zip(command.grant_slot, command.grant_block, strict=True):
            self._grant(self._slot(number, "grant"), block)
        require(
            len({one.slot for one in command.append}) == len(command.append),
            "append names a slot twice",
        )
        for one in command.append:
            self._append(self._slot(one.slot, "append"), from_bytes(one.tokens, "append"))
        if command.decode_changed:
            self.decode = list(command.decode)
            self._check_groups(command)

    def _append(self, slot: Slot, tokens: list[int]) -> None:
        what = f"append of {tokens} to slot {slot.number}"
        require(len(tokens) > 1, f"{what}: a run has more")
        require(
            slot.prefilled and slot.computed == len(slot.tokens) - 1,
            f"{what}, which has computed {slot.computed} of {len(slot.tokens)}",
        )
        if not slot.refused:
            require(tokens[0] == slot.tokens[-1], f"{what}, whose last token is {slot.tokens[-1]}")
            require(
                tokens[1:] == slot.run[: len(tokens) - 1],
                f"{what}, where {slot.run} was forced",
            )
        slot.go_on(tokens)

    def _check_groups(self, command: StepCommand) -> None:
        """Slots of a group hold the same computed blocks; each has a token of its own."""
        first = 0
        for rows, blocks in zip(command.group_rows, command.group_blocks, strict=True):
            members = [self._slot(number, "decode") for number in self.decode[first:][:rows]]
            require(rows > 1 and len(members) == rows, f"a group of {rows} rows")
            for slot in members:
                require(
                    slot.blocks[:blocks] == members[0].blocks[:blocks]
                    and len(slot.blocks) >= blocks,
                    f"slot {slot} does not share {blocks} blocks",
                )
                require(
                    slot.computed >= blocks * self.config.block_size,
                    f"slot {slot} has not computed {blocks} blocks",
                )
            first += rows

    def _check_shape(self, command: StepCommand) -> None:
        require(
            command.step == self.next_step,
            f"command says step {command.step}, expected {self.next_step}",
        )
        require(command.repeat >= 1, "repeat is 0")
        require(
            command.repeat == 1 or not command.chunk_slot, f"repeat {command.repeat} with chunks"
        )
        require(
            len(command.grant_slot) == len(command.grant_block), "grant_slot and grant_block differ"
        )
        require(
            len(command.chunk_slot) == len(command.chunk_length),
            "chunk_slot and chunk_length differ in length",
        )
        require(
            command.decode_changed or not command.decode, "a decode list without decode_changed"
        )
        for name in ("release", "chunk_slot", "decode"):
            numbers = getattr(command, name)
            require(len(set(numbers)) == len(numbers), f"{name} names a slot twice")
        if self.limits is not None:
            total, limit = sum(command.chunk_length), self.limits.max_prefill_tokens
            require(total <= limit, f"{total} prefill tokens in a step, max_prefill_tokens {limit}")

    def _slot(self, number: int, what: str) -> Slot:
        require(number in self.slots, f"{what}: slot {number} is empty")
        return self.slots[number]

    def _admit(self, admission: Admission) -> None:
        number, cached = admission.slot, admission.cached
        require(number not in self.slots, f"admit: slot {number} is taken")
        slot = Slot(admission)
        self._check_admission(admission, slot)
        blocks = from_bytes(admission.blocks, "blocks")
        size = self.config.block_size
        require(
            cached <= len(blocks) * size,
            f"admit: slot {number} claims {cached} cached tokens in {len(blocks)} blocks",
        )
        self.slots[number] = slot
        for index, block in enumerate(blocks):
            self._grant(slot, block, shared=(index + 1) * size <= cached)
        for block in slot.blocks[-(-cached // size) :]:
            self._kv.pop(block, None)  # blocks are cleared for whoever gets them
        full, partial = divmod(cached, size)
        require(
            not partial or slot.blocks[full] in self._copied,
            f"admit: slot {number} with {cached} cached tokens, and no copy to its block {full}",
        )
        self._check_cached(slot)

    def _copy(self, command: StepCommand) -> None:
        """Copy blocks in their order."""
        require(len(command.copy_from) == len(command.copy_to), "copy_from and copy_to differ")
        self._copied = set(command.copy_to)
        for source, target in zip(command.copy_from, command.copy_to, strict=True):
            require(0 < source < self.num_blocks and 0 < target < self.num_blocks, "copy: blocks")
            require(not self._holders[target], f"copy: block {target} is held")
            self._kv[target] = list(self._kv.get(source, [None] * self.config.block_size))

    def _check_admission(self, admission: Admission, slot: Slot) -> None:
        what, length = f"admit: slot {slot.number}", len(slot.tokens)
        require(length > 0, f"{what} has no tokens")
        require(
            admission.cached < length,
            f"{what} claims {admission.cached} cached of {length}: the last must be computed",
        )
        require(slot.generated < length, f"{what} has {slot.generated} generated of {length}")
        require(
            not slot.prompt_logprobs or admission.cached <= slot.prompt_start,
            f"{what}: cached prompt_logprobs",
        )
        check_sampling(slot.sampling, what)
        bad = [token for token in slot.tokens if not 0 <= token < self.config.vocab_size]
        if bad:
            slot.refused = True
            message = f"tokens {bad[:3]}, vocab_size {self.config.vocab_size}"
            self._refuse(slot, Refusal.BAD_ADMISSION, message)
        if self.limits is not None:
            slots, top = self.limits.max_slots, self.limits.max_top_n
            require(slot.number < slots, f"{what}, max_slots {slots}")
            wanted = max(slot.sampling.top_n, slot.prompt_top_n)
            require(wanted <= top, f"{what}: top_n {wanted}, max {top}")

    def _refuse(self, slot: Slot, kind: Refusal.Kind, message: str) -> None:
        self._refused.append(Refusal(slot=slot.number, kind=kind, message=message))

    def holds_nan(self, block: int) -> bool:
        """Whether the KV of a token in a block is NaN."""
        held = self._kv.get(block, [])
        return any(prefix is not None and has_nan(prefix, self.config) for prefix in held)

    def _check_cached(self, slot: Slot) -> None:
        """Invariant 3: the cached blocks hold exactly what recomputation would write."""
        size = self.config.block_size
        for position in range(slot.computed):
            block = slot.blocks[position // size]
            held = self._kv.get(block, [None] * size)[position % size]
            require(
                held == slot.hashes[position],
                f"admit: slot {slot.number} claims that block {block} holds its token {position}: "
                + ("nothing was written there" if held is None else "it holds another prefix"),
            )

    def _grant(self, slot: Slot, block: int, *, shared: bool = False) -> None:
        what = f"slot {slot.number} gets block {block}"
        require(0 < block < self.num_blocks, f"{what}: valid are 1 .. {self.num_blocks - 1}")
        require(
            shared or not self._holders[block], f"{what} to write, which another slot holds too"
        )
        self._holders[block] += 1
        slot.blocks.append(block)
        if self.limits is not None:
            width = -(-self.limits.max_sequence_length // self.config.block_size)
            require(
                len(slot.blocks) <= width,
                f"{what}, its {len(slot.blocks)}th: max_sequence_length needs {width}",
            )

    # ---- one step

    def _step(self, command: StepCommand, step: int, *, first: bool) -> StepResult:
        result, rows = StepResult(step=step, device_ns=1000), []
        chunking = set(command.chunk_slot)
        self._give_up(command, first)
        for number in self.decode:
            slot = self._slot(number, "decode")
            require(number not in chunking, f"slot {number} has a chunk and decodes in one step")
            require(
                slot.prefilled,
                f"decode: slot {number} has computed {slot.computed} of {slot.prompt_length}",
            )
            self._write(slot, 1)
            rows.append(slot)
        if first:
            for number, length in zip(command.chunk_slot, command.chunk_length, strict=True):
                slot = self._slot(number, "chunk")
                self._chunk(slot, length, result)
                if slot.computed == slot.prompt_length:
                    rows.append(slot)
        self._sample(rows, result)
        result.refused.extend(self._refused)
        self._refused = []
        return result

    def _give_up(self, command: StepCommand, first: bool) -> None:
        """Refuse all slots of a step that does not fit in memory."""
        rows = dict.fromkeys(self.decode, 1)
        if first:
            rows |= zip(command.chunk_slot, command.chunk_length, strict=True)
        found = [self.slots.get(number) for number in rows]
        slots = [slot for slot in found if slot is not None and not slot.refused]
        if 0 < self.config.memory_rows < sum(rows[slot.number] for slot in slots):
            for slot in slots:
                slot.refused = True
                self._refuse(slot, Refusal.OUT_OF_MEMORY, "the step did not fit in memory")

    def _chunk(self, slot: Slot, length: int, result: StepResult) -> None:
        start, left = slot.computed, slot.prompt_length - slot.computed
        require(
            0 < length <= left, f"slot {slot.number}: chunk of {length} tokens, {left} are left"
        )
        self._write(slot, length)
        if slot.prompt_logprobs and slot.look_for_nan(self.config):
            self._refuse(slot, Refusal.NOT_A_NUMBER, "NaN among the log-probabilities")
        if slot.prompt_logprobs:
            end = min(start + length + 1, slot.prompt_length - slot.generated)
            start = max(start, slot.prompt_start)
            values = [logprob_of(slot.hashes[i - 1], slot.tokens[i]) for i in range(start + 1, end)]
            ranks = [rank_of(slot.hashes[i - 1], slot.tokens[i]) for i in range(start + 1, end)]
            part = PromptLogprobs(slot=slot.number, start=start, logprob=values, rank=ranks)
            asked = slot.prompt_top_n or slot.sampling.given
            for i in range(start + 1, end if asked else 0):
                top = self._top(0, slot, i - 1, slot.tokens[i], slot.prompt_top_n)
                part.top_token += np.asarray(top.token, np.int32).tobytes()
                part.top_logprob += np.asarray(top.logprob, np.float32).tobytes()
            if values:
                result.prompt.append(part)

    def _write(self, slot: Slot, count: int) -> None:
        """Writes the KV of the next `count` tokens of a slot."""
        size = self.config.block_size
        for position in range(slot.computed, slot.computed + count):
            require(
                position < len(slot.blocks) * size,
                f"slot {slot.number} writes position {position}, "
                f"its {len(slot.blocks)} blocks hold {len(slot.blocks) * size}",
            )
            block = slot.blocks[position // size]
            require(
                self._holders[block] == 1,
                f"slot {slot.number} writes position {position} into block {block}, which "
                f"{self._holders[block]} slots hold",
            )
            if not slot.refused:
                self._kv.setdefault(block, [None] * size)[position % size] = slot.hashes[position]
        slot.computed += count

    def _sample(self, rows: list[Slot], result: StepResult) -> None:
        want_logprobs = any(slot.sampling.logprobs for slot in rows)
        for row, slot in enumerate(rows):
            prefix = slot.hashes[-1]
            if slot.look_for_nan(self.config):
                self._refuse(slot, Refusal.NOT_A_NUMBER, "NaN among the logits")
            token = next_token(prefix, slot.sampling, self.config)
            result.token.append(token)
            if want_logprobs:
                result.logprob.append(logprob_of(prefix, token))
                result.rank.append(rank_of(prefix, token))
            if slot.sampling.top_n or slot.sampling.given:
                place = len(slot.hashes) - 1
                result.top.append(self._top(row, slot, place, token, slot.sampling.top_n))
            slot.append(token)
            slot.run = slot.run[1:]
            if slot.grammar and not slot.run and not slot.refused:
                slot.run = forced_run(slot.hashes[-1], slot.sampling, self.config)
                if slot.run:
                    result.forced.add(row=row, token=slot.run)

    def _top(self, row: int, slot: Slot, place: int, token: int, count: int) -> TopTokens:
        prefix = slot.hashes[place]
        tokens = [(token + i) % self.config.vocab_size for i in range(count)]
        pairs = sorted(((logprob_of(prefix, t), t) for t in tokens), reverse=True)
        pairs += [(logprob_of(prefix, t), t) for t in slot.sampling.given]
        return TopTokens(row=row, token=[t for _, t in pairs], logprob=[p for p, _ in pairs])
