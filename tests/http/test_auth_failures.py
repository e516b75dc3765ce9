"""The bucket of failed attempts: 50 a second for each peer, bounded in memory, with IPv6 counted by network."""

import pytest

from supervisor.http.auth_failures import BURST, PEERS_MAX, AuthFailures


def failing(failures: AuthFailures, address: str, times: int, now_s: float) -> int:
    """How many of these attempts were over."""
    return sum(failures.is_over(address, now_s) for _ in range(times))


def test_fifty_at_once_and_fifty_in_each_second_after() -> None:
    failures = AuthFailures()

    over = [failing(failures, "10.0.0.1", 60, now_s) for now_s in (0.0, 0.5, 1.5, 100.0)]

    assert over == [10, 35, 10, 10]


@pytest.mark.parametrize(
    ("first", "second", "is_same"),
    [
        ("10.0.0.1", "10.0.0.2", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("", "", True),
    ],
)
def test_a_peer_is_an_address_or_a_network_of_ipv6(first: str, second: str, is_same: bool) -> None:
    failures = AuthFailures()
    failing(failures, first, int(BURST), 0.0)

    assert failures.is_over(second, 0.0) is is_same


def test_many_peers_cost_bounded_memory_and_the_oldest_is_forgotten() -> None:
    failures = AuthFailures()
    failing(failures, "10.0.0.1", int(BURST), 0.0)

    for number in range(PEERS_MAX):
        failures.is_over(f"11.{number >> 16}.{number >> 8 & 255}.{number & 255}", 0.0)

    assert len(failures._buckets) == PEERS_MAX
    assert not failures.is_over("10.0.0.1", 0.0)
