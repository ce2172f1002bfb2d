"""The prefix tree against a plain dictionary of prefixes."""

from __future__ import annotations

from array import array

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from penstock_router.scheduler.prefix_cache import Node, PrefixCache, shared_tokens

KEYS = [b"aaaa", b"bbbb", b"cccc"]
OPERATION = st.one_of(
    st.tuples(st.just("use"), st.lists(st.sampled_from(KEYS), min_size=1, max_size=5)),
    st.tuples(st.just("leave"), st.integers(0, 3)),
    st.tuples(st.just("evict"), st.just(None)),
)


class Model:
    """Prefixes with the time of their last use; a prefix in use protects those that begin it."""

    def __init__(self) -> None:
        self.used_at: dict[tuple[bytes, ...], int] = {}
        self.pinned: list[tuple[bytes, ...]] = []

    def protected(self, prefix: tuple[bytes, ...]) -> bool:
        return any(pin[: len(prefix)] == prefix for pin in self.pinned)

    def victim(self) -> tuple[bytes, ...] | None:
        leaves = [
            prefix
            for prefix in self.used_at
            if not self.protected(prefix)
            and not any(other[:-1] == prefix for other in self.used_at)
        ]
        return min(leaves, key=lambda leaf: self.used_at[leaf]) if leaves else None


@given(st.lists(OPERATION, max_size=60))
@settings(deadline=None, max_examples=300)
def test_it_evicts_what_was_used_longest_ago(operations: list[tuple[str, object]]) -> None:
    cache, model = PrefixCache(4), Model()
    pins: list[Node] = []
    prefix_of: dict[int, tuple[bytes, ...]] = {}
    blocks = 0
    for clock, (name, argument) in enumerate(operations):
        if name == "use":
            assert isinstance(argument, list)
            prefix = tuple(argument)
            tokens = b"".join(prefix)
            node = cache.match(b"", tokens, len(prefix))
            known = max(
                (i for i in range(len(prefix) + 1) if prefix[:i] in model.used_at), default=0
            )
            assert node.depth == known
            cache.pin(node)
            while node.depth < len(prefix):
                blocks += 1
                child = cache.insert(node, prefix[node.depth], blocks)
                assert child.block == blocks
                cache.pin(child)
                cache.unpin(node)
                node = child
                prefix_of[blocks] = prefix[: node.depth]
            for length in range(1, len(prefix) + 1):
                model.used_at[prefix[:length]] = clock
            pins.append(node)
            model.pinned.append(prefix)
        elif name == "leave" and pins:
            assert isinstance(argument, int)
            index = argument % len(pins)
            cache.unpin(pins.pop(index))
            prefix = model.pinned.pop(index)
            for length in range(1, len(prefix) + 1):
                model.used_at[prefix[:length]] = clock
        elif name == "evict":
            victim = model.victim()
            if victim is None:
                with pytest.raises(LookupError):
                    cache.evict()
            else:
                assert prefix_of[cache.evict()] == victim
                del model.used_at[victim]
        assert cache.size == len(model.used_at)
        assert cache.evictable == sum(not model.protected(p) for p in model.used_at)


def test_salts_have_roots_of_their_own() -> None:
    cache = PrefixCache(4)
    node = cache.insert(cache.root(b"a"), b"aaaa", 1)
    cache.pin(node)
    assert cache.match(b"a", b"aaaa", 1) is node
    assert cache.match(b"b", b"aaaa", 1).depth == 0 and cache.salts == 1


def test_salts_leave_nothing_behind() -> None:
    """Clients choose them, as many as they like."""
    cache = PrefixCache(4)
    for number in range(100):
        assert cache.match(b"%d" % number, b"aaaabbbb", 2).depth == 0
    assert cache.salts == 0
    for salt in (b"unused", b"evicted", b"forgotten"):
        root = cache.root(salt)
        cache.pin(root)
        assert cache.match(salt, b"aaaa", 1) is root and cache.salts == 1
        nodes = []
        if salt != b"unused":
            nodes = [cache.insert(root, key, key[0]) for key in (b"aaaa", b"bbbb")]
        for node in nodes:
            cache.pin(node)
        cache.unpin(root)
        for node in nodes:
            cache.unpin(node)
        assert cache.salts == bool(nodes)
        if salt == b"evicted":
            assert {cache.evict() for _ in nodes} == {97, 98}
        else:
            assert [cache.forget(node) for node in nodes] == [[97], [98]][: len(nodes)]
        assert cache.salts == cache.size == 0


def test_a_match_goes_no_further_than_it_may() -> None:
    cache = PrefixCache(4)
    first = cache.insert(cache.root(b""), b"aaaa", 1)
    cache.pin(first)
    second = cache.insert(first, b"bbbb", 2)
    cache.pin(second)
    assert cache.match(b"", b"aaaabbbb", 1) is first
    assert second.path_blocks() == [1, 2]


def test_a_match_like_the_one_before() -> None:
    """What was found last is where the next match begins, but only while it fits."""
    cache = PrefixCache(4)
    first = cache.insert(cache.root(b""), b"aaaa", 1)
    cache.pin(first)
    second = cache.insert(first, b"bbbb", 2)
    cache.pin(second)
    third = cache.insert(second, b"cccc", 3)
    cache.pin(third)
    tokens = b"aaaabbbbcccc"
    assert cache.match(b"", tokens, 2) is second
    assert cache.match(b"", tokens, 3) is third  # deeper
    assert cache._first(b"", tokens, 3) is third
    assert cache.match(b"", tokens, 2) is second  # not as deep
    assert cache.match(b"", tokens, 3) is third
    assert cache.match(b"", b"aaaabbbbdddd", 3) is second  # parts from it
    assert cache.match(b"", tokens, 3) is third
    assert cache.match(b"", b"aaaabbbb", 2) is second  # ends before it
    assert cache.match(b"a", tokens, 3).depth == 0  # another's
    assert cache.match(b"", tokens, 3) is third
    cache.unpin(third)
    assert cache.evict() == 3
    assert cache.match(b"", tokens, 3) is second
    cache.unpin(second)
    assert cache.evict() == 2
    assert cache.match(b"", tokens, 3) is first


def test_the_child_that_begins_with_most_of_the_tokens() -> None:
    cache = PrefixCache(12)
    parent = cache.insert(cache.root(b""), b"ssssssssssss", 1)
    cache.pin(parent)
    parent.confirmed = True
    for block, key in enumerate((b"aaaabbbbcccc", b"aaaaccccbbbb", b"ccccbbbbaaaa"), 2):
        child = cache.insert(parent, key, block)
        cache.pin(child)
        if block == 2:
            assert cache.partial_block(parent, key) == (0, 0), "nobody knows yet what is in it"
        child.confirmed = True
    assert cache.partial_block(parent, b"aaaabbbbdddd") == (2, 2)
    assert cache.partial_block(parent, b"aaaabbbb") == (2, 2)
    assert cache.partial_block(parent, b"aaaaccccbbbb") == (3, 3)
    assert cache.partial_block(parent, b"aaa\x00bbbbcccc") == (0, 0)
    assert cache.partial_block(cache.root(b""), b"ssssaaaa") == (1, 1)


@pytest.mark.parametrize("common", [0, 1, 255, 256, 257, 1000, 1024])
def test_tokens_in_common_of_long_prompts(common: int) -> None:
    a, b = array("i", range(1024)), array("i", range(1024))
    b[common:] = array("i", [-1] * (1024 - common))
    assert shared_tokens(a.tobytes(), bytearray(b.tobytes())) == common


@given(st.lists(st.integers(-3, 2**31 - 1)), st.lists(st.integers(-3, 3)), st.integers(0, 9))
def test_tokens_in_common(a: list[int], b: list[int], common: int) -> None:
    b = a[:common] + b
    expected = next(
        (i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b))
    )
    assert shared_tokens(array("i", a).tobytes(), array("i", b).tobytes()) == expected


def test_what_is_forgotten_is_found_no_more_and_freed_with_its_last_user() -> None:
    """a ─ b ─ c and a ─ b ─ d, where c is in use: b is forgotten."""
    cache = PrefixCache(4)
    nodes = {}
    for block, (parent, key) in enumerate((("", "a"), ("a", "b"), ("b", "c"), ("b", "d")), 1):
        nodes[key] = cache.insert(nodes.get(parent, cache.root(b"")), key.encode() * 4, block)
        cache.pin(nodes[key])
    for key in "abd":
        assert cache.unpin(nodes[key]) == []
    assert (cache.size, cache.evictable) == (4, 1)
    assert cache.match(b"", b"aaaabbbbcccc", 3) is nodes["c"]
    assert cache.forget(nodes["b"]) == [4]
    assert cache.match(b"", b"aaaabbbbcccc", 3) is nodes["a"]
    assert (cache.size, cache.evictable) == (3, 0) and len(list(cache.nodes())) == 3
    with pytest.raises(LookupError):
        cache.evict()
    assert cache.unpin(nodes["c"]) == [3, 2]
    assert (cache.size, cache.evictable) == (1, 1) and cache.evict() == 1
    assert not list(cache.nodes())
