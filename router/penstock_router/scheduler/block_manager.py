"""Who holds which KV block: the free list, the prefix cache, or one sequence alone."""

from __future__ import annotations

from collections import Counter

from penstock_router.scheduler.prefix_cache import Node, PrefixCache, shared_tokens
from penstock_router.scheduler.sequence import RunningSequence, Sequence

# At least an eighth of a block. By its bytes a copy of 64 tokens of an 8B model takes 6 us of an
# H100, and each token that is not computed again saves 21 (a full step has 47 thousand a second).
WORTH_COPYING = 8


class BlockManager:
    """Lends blocks to sequences and moves them into the prefix cache once they are computed.

    Every block but block 0 (scratch on the shards, never lent) is always in exactly one place:
    the free list, the tree, or the `private` set of one sequence.
    """

    def __init__(self, num_blocks: int, block_size: int, prefix_cache: bool) -> None:
        self.block_size = block_size
        self.total = num_blocks - 1
        self._free = list(range(num_blocks - 1, 0, -1))
        self._caching = prefix_cache
        self._width = 4 * block_size  # bytes of a block's tokens
        self.cache = PrefixCache(self._width)

    @property
    def available(self) -> int:
        """Blocks that can be had without taking one from a running sequence."""
        return len(self._free) + self.cache.evictable

    @property
    def used(self) -> int:
        """Blocks that running sequences hold or share."""
        return self.total - self.available

    def blocks_for(self, tokens: int) -> int:
        """How many blocks hold the KV of so many tokens."""
        return -(-tokens // self.block_size)

    def find_prefix(self, sequence: Sequence) -> Node:
        """The longest cached prefix of a sequence's tokens that may be used for it."""
        limit = sequence.reusable // self.block_size if self._caching else 0
        return self.cache.match(sequence.request.cache_salt, sequence.tokens, limit)

    def to_compute(self, sequence: Sequence) -> int:
        """Tokens of a sequence that no whole cached block holds: up to a block too many."""
        return sequence.length - self.find_prefix(sequence).depth * self.block_size

    def to_compute_behind(self, sequence: Sequence, other: Sequence) -> int:
        """Tokens that are left to compute once all that `other` has in common is in the cache."""
        shared = shared_tokens(sequence.tokens, other.tokens)
        return sequence.length - min(shared, sequence.reusable)

    def can_admit(self, sequence: Sequence, prefix: Node, spare: int) -> bool:
        """Whether all of a sequence's tokens and the next one fit, with `spare` blocks left."""
        self.cache.pin(prefix)
        fits = self.blocks_for(sequence.length + 1) - prefix.depth + spare <= self.available
        self.cache.unpin(prefix)
        return fits

    def admit(self, sequence: Sequence, prefix: Node, slot: int) -> RunningSequence:
        """Give a sequence the blocks for all of its tokens. `can_seat` must hold.

        The block behind the prefix may begin like another one: it starts as a copy of that, which
        the shards make before they write anything, so the other may be evicted here already.
        """
        self.cache.pin(prefix)
        source, tokens = self._partial_block(sequence, prefix)
        cached = prefix.depth * self.block_size + tokens
        running = RunningSequence(sequence, slot, prefix, prefix.path_blocks(), cached)
        while len(running.blocks) < self.blocks_for(sequence.length):
            self.grow(running)
        if tokens:
            running.copy = (source, running.blocks[prefix.depth])
        running.note_table()
        return running

    def _partial_block(self, sequence: Sequence, prefix: Node) -> tuple[int, int]:
        """A cached block that begins like the one behind the prefix, and with how many tokens:
        enough to be worth a copy."""
        if not self._caching:
            return 0, 0
        block, shared = self.cache.partial_block(prefix, self.key_after(sequence, prefix))
        shared = min(shared, sequence.reusable - prefix.depth * self.block_size)
        return (block, shared) if shared * WORTH_COPYING >= self.block_size else (0, 0)

    def grow(self, running: RunningSequence) -> int:
        """Append one block to a block table. `available` must not be 0."""
        block = self._free.pop() if self._free else self.cache.evict()
        running.blocks.append(block)
        running.private.add(block)
        return block

    def next_key(self, running: RunningSequence) -> bytes | None:
        """Tokens of the first whole block that a sequence has not put into the tree yet."""
        start = running.node.depth * self._width
        key = bytes(running.sequence.tokens[start : start + self._width])
        return key if self._caching and len(key) == self._width else None

    def key_after(self, sequence: Sequence, prefix: Node) -> bytes:
        """Tokens of the block that follows `prefix` in a sequence."""
        start = prefix.depth * self._width
        return bytes(sequence.tokens[start : start + self._width])

    def publish(self, running: RunningSequence, confirmed: bool) -> None:
        """Put a sequence's blocks that are computed and whole into the tree.

        Where another sequence computed the same tokens first, its block is in the tree and the
        own stays private; its later blocks go below the other's, as they hold the same.
        confirmed: the last of its rows had a number for its outcome, and has read all of them.
        """
        if not self._caching or running.node.forgotten:
            return
        cache, node = self.cache, running.node
        while (node.depth + 1) * self.block_size <= running.computed:
            block = running.blocks[node.depth]
            node = cache.insert(node, self.key_after(running.sequence, node), block)
            if node.block == block:
                running.private.discard(block)
        cache.pin(node)
        cache.unpin(running.node)
        running.node = node
        while confirmed and node.parent is not None and not node.confirmed:
            node.confirmed = node.block == running.blocks[node.depth - 1]
            node = node.parent

    def forget(self, sequence: Sequence) -> None:
        """Let the cache forget what a sequence computed whose outcome is no number, and what it
        found there that no other outcome has confirmed: NaN must not be shared."""
        tokens, limit = sequence.tokens, sequence.length // self.block_size
        node = self.cache.match(sequence.request.cache_salt, tokens, limit if self._caching else 0)
        found = sequence.cached_tokens // self.block_size
        doubtful: Node | None = None
        while node.parent is not None:
            if node.depth > found or not node.confirmed:
                doubtful = node
            node = node.parent
        if doubtful is not None:
            self._free.extend(self.cache.forget(doubtful))

    def forget_all(self) -> None:
        """Empty the prefix cache. No sequence may run."""
        self._free.extend(self.cache.clear())

    def release(self, running: RunningSequence) -> None:
        """Take a sequence's blocks back; those in the tree stay there."""
        self._free.extend(running.private)
        running.private.clear()
        self._free.extend(self.cache.unpin(running.node))

    def check_integrity(self, batch: list[RunningSequence]) -> None:
        """Raise AssertionError unless every block is in exactly one place."""
        nodes = list(self.cache.nodes())
        owned = list(self._free) + [n.block for n in nodes]
        for running in batch:
            owned.extend(running.private)
        assert sorted(owned) == list(range(1, self.total + 1)), "a block leaked or has two owners"
        assert len(nodes) == self.cache.size
        roots = {running.node.key for running in batch if running.node.parent is None}
        assert self.cache.salts <= self.cache.size + len(roots), "a root without use"
        assert sum(n.refs == 0 for n in nodes) == self.cache.evictable
        protected = Counter(id(running.node) for running in batch)
        protected.update(id(node.parent) for node in nodes if node.refs)
        for node in nodes:
            assert node.refs == protected[id(node)], "a pin was lost"
