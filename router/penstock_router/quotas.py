"""What each API key may take and has taken. One object of a server decides, in the process that
schedules, so that the limits of a key hold over all processes that serve HTTP.

An allowance a minute is a bucket that fills evenly and holds what one minute allows. Tokens are
reserved before a request runs, as many as it might take, and put right when it has ended; so a
bucket may come to less than nothing, and the average holds all the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from penstock_proto.api_keys import ApiKey

Limit = Literal["", "requests_per_minute", "tokens_per_minute", "concurrent_requests"]

MINUTE = 60.0
BUSY_SECONDS = 1.0  # until another request of the key may have ended


@dataclass(frozen=True, slots=True)
class Allowance:
    """What is left of a limit a minute."""

    left: int
    full_in: float  # seconds until nothing of it is used


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a request may go on."""

    refused: Limit = ""  # the limit that it met
    wait: float = 0.0  # seconds until it might
    requests: Allowance | None = None  # where the key has this limit
    tokens: Allowance | None = None


class Bucket:
    """See the module. Times are seconds of any one clock."""

    def __init__(self, limit: int, now: float) -> None:
        self.limit = limit
        self._level = float(limit)
        self._seen = now

    def take(self, amount: float, now: float) -> float:
        """Seconds until so much will be there; 0.0: it was, and is taken. What is more than a
        whole minute allows takes a full bucket."""
        amount = min(amount, self.limit)
        self._fill(now)
        if self._level < amount:
            return (amount - self._level) * MINUTE / self.limit
        self._level -= amount
        return 0.0

    def give(self, amount: float, now: float) -> None:
        """Put something back; a negative amount takes it, whatever there is."""
        self._fill(now)
        self._level = min(float(self.limit), self._level + amount)

    def resize(self, limit: int, now: float) -> None:
        """Another limit, from now on."""
        self._fill(now)
        self.limit, self._level = limit, min(float(limit), self._level)

    def allowance(self, now: float) -> Allowance:
        self._fill(now)
        missing = self.limit - self._level
        return Allowance(max(0, int(self._level)), missing * MINUTE / self.limit)

    def _fill(self, now: float) -> None:
        grown = self._level + (now - self._seen) * self.limit / MINUTE
        self._level, self._seen = min(float(self.limit), grown), now


class Account:
    """One key's, or that of all keys without a name."""

    def __init__(self) -> None:
        self.requests = 0  # begun, in all
        self.refused = 0
        self.prompt_tokens = 0
        self.generated_tokens = 0
        self.running = 0
        self.most_running: int | None = None
        self.by_request: Bucket | None = None
        self.by_token: Bucket | None = None

    def allow(self, key: ApiKey, now: float) -> None:
        """The limits that count from now on; what is used of them stays used."""
        self.most_running = key.concurrent_requests
        self.by_request = _resized(self.by_request, key.requests_per_minute, now)
        self.by_token = _resized(self.by_token, key.tokens_per_minute, now)

    def met(self, now: float) -> tuple[Limit, float]:
        """The limit that another request would meet, and the seconds until it would not. Where
        there is none, it is taken from the requests of this minute."""
        if self.most_running is not None and self.running >= self.most_running:
            return "concurrent_requests", BUSY_SECONDS
        if self.by_token is not None and (wait := _wait_for_one(self.by_token, now)):
            return "tokens_per_minute", wait
        if self.by_request is not None and (wait := self.by_request.take(1, now)):
            return "requests_per_minute", wait
        return "", 0.0


@dataclass(slots=True)
class _Lease:
    """A request that has begun."""

    account: Account
    reserved: int = 0


class Quotas:
    """All accounts, by the names of keys. Every request has a number, or anything that tells it
    from others."""

    def __init__(
        self, keys: Sequence[ApiKey] = (), clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._accounts: dict[str, Account] = {}
        self._leases: dict[Hashable, _Lease] = {}
        self.replace(keys)

    def replace(self, keys: Sequence[ApiKey]) -> None:
        """These keys there are from now on. Accounts stay with their names; those of names that
        are gone are shown no more."""
        now, before = self._clock(), self._accounts
        self._accounts = {}
        for key in keys:
            account = self._accounts[key.name] = before.get(key.name) or Account()
            account.allow(key, now)

    def begin(self, number: Hashable, name: str) -> Verdict:
        """A request has come. It is counted until `settle`, unless it is refused."""
        now, account = self._clock(), self._accounts.get(name)
        if account is None:  # its key goes, and was there when it came
            return Verdict()
        limit, wait = account.met(now)
        if limit:
            account.refused += 1
        else:
            account.requests += 1
            account.running += 1
            self._leases[number] = _Lease(account)
        return _verdict(account, now, limit, wait)

    def reserve(self, number: Hashable, tokens: int) -> Verdict:
        """Before the request runs: it may take so many tokens more."""
        lease = self._leases.get(number)
        if lease is None:
            return Verdict()
        account, now = lease.account, self._clock()
        bucket, wait = account.by_token, 0.0
        if bucket is not None and not (wait := bucket.take(tokens, now)):
            lease.reserved += min(tokens, bucket.limit)
        if wait:
            account.refused += 1
        return _verdict(account, now, "tokens_per_minute" if wait else "", wait)

    def settle(self, number: Hashable, prompt: int, generated: int) -> None:
        """The request has ended, and took so many tokens. Harmless where it was refused."""
        lease = self._leases.pop(number, None)
        if lease is None:
            return
        account = lease.account
        account.running -= 1
        account.prompt_tokens += prompt
        account.generated_tokens += generated
        if account.by_token is not None:
            account.by_token.give(lease.reserved - prompt - generated, self._clock())

    @property
    def open(self) -> int:
        """Requests that have not ended."""
        return len(self._leases)

    def samples(self) -> Iterator[str]:
        """Lines for /metrics; none where there are no keys. Names are made of characters that need
        no escapes."""
        for name, text, value in _SERIES if self._accounts else ():
            yield f"# HELP {name} {text}"
            yield f"# TYPE {name} counter"
            for key, account in self._accounts.items():
                yield f'{name}{{key="{key}"}} {value(account)}'


_SERIES: tuple[tuple[str, str, Callable[[Account], int]], ...] = (
    ("penstock_key_requests_total", "Requests of an API key", lambda a: a.requests),
    ("penstock_key_refused_total", "Those that met a limit of the key", lambda a: a.refused),
    ("penstock_key_prompt_tokens_total", "Its prompt tokens", lambda a: a.prompt_tokens),
    ("penstock_key_generated_tokens_total", "Its new tokens", lambda a: a.generated_tokens),
)


def _resized(bucket: Bucket | None, limit: int | None, now: float) -> Bucket | None:
    if limit is None:
        return None
    if bucket is None:
        return Bucket(limit, now)
    bucket.resize(limit, now)
    return bucket


def _wait_for_one(bucket: Bucket, now: float) -> float:
    """Seconds until there is a token; takes none."""
    if not (wait := bucket.take(1, now)):
        bucket.give(1, now)
    return wait


def _verdict(account: Account, now: float, refused: Limit, wait: float) -> Verdict:
    requests, tokens = account.by_request, account.by_token
    return Verdict(
        refused,
        wait,
        None if requests is None else requests.allowance(now),
        None if tokens is None else tokens.allowance(now),
    )
