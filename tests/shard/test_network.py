"""The interface that leads to another host."""

from penstock_shard.ranks.network import interface_towards


def test_the_loopback_leads_to_itself() -> None:
    assert interface_towards("127.0.0.1") == "lo"
    assert interface_towards("localhost") == "lo"


def test_what_is_not_known_is_nothing() -> None:
    assert interface_towards("no.such.host.invalid") is None
    assert interface_towards("::1") is None  # IPv4 alone is looked at
