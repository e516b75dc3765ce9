"""`orchctl status` on a pool that is ready and takes no task, for its runs keep failing."""

from orchctl.pool_words import pool_mark, state_style, state_word
from orchctl.status_text import host_page, pool_page
from orchctl.terminal import Style
from supervisor.wire.pools import BreakerView, PoolHealth
from tests.cli.builders import host, pool
from tests.cli.screens import screen


def untrusted(state: str, retry_in_ms: int | None = None) -> PoolHealth:
    return pool(breaker=BreakerView(state=state, retry_in_ms=retry_in_ms, cause="the engine answered 500"))


def test_an_ejected_pool_says_so_with_its_cause_and_the_next_try() -> None:
    ejected = untrusted("open", 24_000)
    page = " ".join(" ".join(pool_page(ejected, screen(width=120))).split())

    assert (state_word(ejected), state_style(ejected)) == ("ejected", Style.BAD)
    assert pool_mark(ejected, screen()) == screen().signs.off
    assert "its runs failed, the last one with: the engine answered 500; next try in 24 s" in page
    assert "ejected" in " ".join(host_page(host(ejected), screen(width=120), is_wide=False))


def test_a_pool_on_probation_says_so() -> None:
    assert [state_word(untrusted(state)) for state in ("half-open", "probing")] == ["on probation"] * 2
    assert state_style(untrusted("probing")) is Style.WARN


def test_a_trusted_pool_says_nothing_of_it() -> None:
    trusted = pool(breaker=BreakerView(state="closed"))

    assert state_word(trusted) == "ready"
    assert pool_page(trusted, screen()) == pool_page(pool(), screen())
