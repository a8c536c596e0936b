"""Limits of keys and of the process: who is let in, what it costs, and when to come back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import GatewayError, Overloaded, RateLimited
from proxy.settings import Key
from proxy.state.limits import Limits
from tests.properties import thorough


def key(name: str = "laptop", **limits: int) -> Key:
    return Key(name=name, digest=b"", **limits)


def admit(limits: Limits, whose: Key | None, now: float, *, times: int = 1, max_streams: int = 0) -> list:
    return [limits.admit(whose, max_streams, now) for _ in range(times)]


def refusal(limits: Limits, whose: Key | None, now: float, max_streams: int = 0) -> GatewayError:
    with pytest.raises((RateLimited, Overloaded)) as caught:
        limits.admit(whose, max_streams, now)
    return caught.value


def spend(limits: Limits, whose: Key, now: float, tokens: int) -> None:
    (slot,) = admit(limits, whose, now)
    slot.settle(refused=False, tokens=tokens, now=now)


# Requests a minute...


def test_so_many_requests_and_no_more():
    limits, whose = Limits(), key(requests_per_minute=3)
    admit(limits, whose, 100.0, times=3)
    error = refusal(limits, whose, 100.0)
    assert (error.status, error.message) == (429, "this key may use 3 requests per minute")


def test_a_key_without_limits_has_none():
    limits = Limits()
    admit(limits, key(), 0.0, times=1000)
    admit(limits, None, 0.0, times=1000)
    assert limits.live == 2000


def test_keys_do_not_share():
    limits = Limits()
    admit(limits, key("a", requests_per_minute=1), 0.0)
    admit(limits, key("b", requests_per_minute=1), 0.0)
    refusal(limits, key("a", requests_per_minute=1), 0.0)


def test_the_window_slides():
    limits, whose = Limits(), key(requests_per_minute=60)
    admit(limits, whose, 30.0, times=60)
    refusal(limits, whose, 59.9)
    refusal(limits, whose, 60.0)  # a new minute does not begin with nothing: all of the last one still counts
    admit(limits, whose, 90.0, times=30)  # half of it
    refusal(limits, whose, 90.0)
    admit(limits, whose, 180.0, times=60)  # what is two minutes old is forgotten


def test_what_is_refused_is_not_counted():
    limits, whose = Limits(), key(requests_per_minute=2)
    admit(limits, whose, 0.0, times=2)
    for _ in range(50):
        refusal(limits, whose, 1.0)
    admit(limits, whose, 120.0, times=2)
    assert limits.live == 4


def test_a_changed_limit_holds_at_once():
    limits = Limits()
    admit(limits, key(requests_per_minute=5), 0.0, times=5)
    admit(limits, key(requests_per_minute=10), 0.0, times=5)
    refusal(limits, key(requests_per_minute=3), 0.0)


def test_a_key_that_gets_limits_begins_at_nothing():
    """What it has begun without them is not held against it, and gives nothing back."""
    limits = Limits()
    before = admit(limits, key(), 0.0, times=5)
    whose = key(requests_per_minute=2, tokens_per_minute=100, streams=2)
    admit(limits, whose, 0.0, times=2)
    for slot in before:
        slot.settle(refused=True, tokens=1000, now=0.0)
    assert "requests per minute" in refusal(limits, whose, 0.0).message
    assert limits.live == 2


# Tokens a minute...


def test_tokens_are_charged_when_they_are_known():
    limits, whose = Limits(), key(tokens_per_minute=100)
    slots = admit(limits, whose, 0.0, times=3)
    for slot in slots:
        slot.settle(refused=False, tokens=60, now=1.0)
    error = refusal(limits, whose, 2.0)
    assert error.message == "this key may use 100 tokens per minute"


def test_tokens_are_charged_in_the_minute_in_which_they_were_known():
    limits, whose = Limits(), key(tokens_per_minute=100)
    (slot,) = admit(limits, whose, 59.0)
    slot.settle(refused=False, tokens=100, now=300.0)
    refusal(limits, whose, 300.0)


def test_a_refused_request_has_no_tokens():
    limits, whose = Limits(), key(tokens_per_minute=100)
    (slot,) = admit(limits, whose, 0.0)
    slot.settle(refused=True, tokens=500, now=0.0)
    admit(limits, whose, 0.0)


# Exchanges at once...


def test_so_many_at_once_and_no_more():
    limits, whose = Limits(), key(streams=2)
    first, _ = admit(limits, whose, 0.0, times=2)
    error = refusal(limits, whose, 0.0)
    assert (error.status, error.headers["Retry-After"]) == (429, "1")
    assert "2 exchanges at once" in error.message
    first.settle(refused=False, tokens=0, now=0.0)
    admit(limits, whose, 0.0)


def test_the_process_has_room_for_so_many():
    limits = Limits()
    slots = admit(limits, None, 0.0, times=2, max_streams=2)
    error = refusal(limits, key(), 0.0, max_streams=2)
    assert (error.status, error.headers["Retry-After"]) == (503, "1")
    assert "limits.max_streams" in error.message
    slots[0].settle(refused=False, tokens=0, now=0.0)
    admit(limits, key(), 0.0, max_streams=2)


def test_a_full_house_costs_a_key_nothing():
    limits, whose = Limits(), key(requests_per_minute=1)
    (slot,) = admit(limits, None, 0.0, max_streams=1)
    refusal(limits, whose, 0.0, max_streams=1)
    slot.settle(refused=False, tokens=0, now=0.0)
    admit(limits, whose, 0.0, max_streams=1)


@pytest.mark.parametrize("refused", [False, True])
def test_a_slot_is_settled_once(refused):
    limits, whose = Limits(), key(streams=2, requests_per_minute=10, tokens_per_minute=100)
    slot, _ = admit(limits, whose, 0.0, times=2)
    for _ in range(3):
        slot.settle(refused=refused, tokens=30, now=0.0)
    assert limits.live == 1
    told = limits.headers(whose, 0.0)
    assert told["x-ratelimit-remaining-requests"] == ("9" if refused else "8")
    assert told["x-ratelimit-remaining-tokens"] == ("100" if refused else "70")
    admit(limits, whose, 0.0)
    refusal(limits, whose, 0.0)


# A request refused with a 4xx costs nothing...


@pytest.mark.parametrize("settled", [0.0, 1.0, 59.9, 60.1, 100.0])
def test_a_refused_request_is_given_back(settled):
    limits, whose = Limits(), key(requests_per_minute=2)
    for _ in range(20):
        (slot,) = admit(limits, whose, settled)
        slot.settle(refused=True, tokens=0, now=settled)
    assert limits.headers(whose, settled)["x-ratelimit-remaining-requests"] == "2"


def test_it_is_given_back_in_the_minute_in_which_it_was_counted():
    limits, whose = Limits(), key(requests_per_minute=2)
    (slot,) = admit(limits, whose, 59.9)
    admit(limits, whose, 60.1)
    slot.settle(refused=True, tokens=0, now=60.2)
    assert limits.headers(whose, 60.2)["x-ratelimit-remaining-requests"] == "1"
    admit(limits, whose, 60.2)
    refusal(limits, whose, 60.2)


def test_what_is_long_forgotten_is_not_given_back_twice():
    limits, whose = Limits(), key(requests_per_minute=2)
    (slot,) = admit(limits, whose, 0.0)
    admit(limits, whose, 300.0, times=2)
    slot.settle(refused=True, tokens=0, now=300.0)
    refusal(limits, whose, 300.0)


# When to come back...


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 60, 1000])
@pytest.mark.parametrize("began", [0.0, 0.4, 17.3, 59.0, 59.99])
def test_a_request_is_let_in_when_it_comes_back_as_told(limit, began):
    limits, whose = Limits(), key(requests_per_minute=limit)
    admit(limits, whose, began, times=limit)
    error = refusal(limits, whose, began)
    wait = int(error.headers["Retry-After"])
    assert 1 <= wait <= 121
    admit(limits, whose, began + wait)


@pytest.mark.parametrize("spent", [100, 101, 250, 100_000])
def test_tokens_are_there_again_as_told(spent):
    limits, whose = Limits(), key(tokens_per_minute=100)
    spend(limits, whose, 12.0, spent)
    wait = int(refusal(limits, whose, 13.0).headers["Retry-After"])
    admit(limits, whose, 13.0 + wait)


@thorough
@given(
    st.integers(1, 50),
    st.lists(st.tuples(st.floats(0, 40), st.integers(1, 20)), min_size=1, max_size=12),
    st.booleans(),
)
def test_whatever_came_before_a_request_is_let_in_as_told(limit, steps, tokens):
    limits, now = Limits(), 1000.0
    whose = key(tokens_per_minute=limit) if tokens else key(requests_per_minute=limit)
    for pause, many in steps:
        now += pause
        for _ in range(many):
            try:
                slot = limits.admit(whose, 0, now)
            except RateLimited as exc:
                error = exc
            else:
                slot.settle(refused=False, tokens=many, now=now)
                continue
            later = now + int(error.headers["Retry-After"])
            limits.admit(whose, 0, later).settle(refused=False, tokens=0, now=later)
            now = later


@thorough
@given(st.integers(1, 30), st.lists(st.floats(0, 30), min_size=1, max_size=150))
def test_no_minute_has_many_more_than_the_limit(limit, pauses):
    limits, whose, now, admitted = Limits(), key(requests_per_minute=limit), 0.0, []
    for pause in pauses:
        now += pause / 5
        try:
            limits.admit(whose, 0, now)
        except RateLimited:
            continue
        admitted.append(now)
    for start in admitted:
        # Two counters are an approximation: it may be off where the last minute was uneven.
        assert sum(start <= moment < start + 60 for moment in admitted) <= 2 * limit
        period = start // 60
        assert sum(moment // 60 == period for moment in admitted) <= limit


# What is left...


def test_headers():
    limits, whose = Limits(), key(requests_per_minute=10, tokens_per_minute=100)
    spend(limits, whose, 30.0, 40)
    assert limits.headers(whose, 30.0) == {
        "x-ratelimit-limit-requests": "10",
        "x-ratelimit-remaining-requests": "9",
        "x-ratelimit-reset-requests": "30s",
        "x-ratelimit-limit-tokens": "100",
        "x-ratelimit-remaining-tokens": "60",
        "x-ratelimit-reset-tokens": "30s",
    }
    spend(limits, whose, 40.0, 150)
    told = limits.headers(whose, 45.0)
    assert (told["x-ratelimit-remaining-requests"], told["x-ratelimit-remaining-tokens"]) == ("8", "0")


def test_only_limits_that_are_there_are_told():
    limits = Limits()
    admit(limits, key(requests_per_minute=10), 0.0)
    assert set(limits.headers(key(requests_per_minute=10), 0.0)) == {
        "x-ratelimit-limit-requests",
        "x-ratelimit-remaining-requests",
        "x-ratelimit-reset-requests",
    }
    assert limits.headers(key(streams=5), 0.0) == {}


def test_a_refusal_says_what_is_left():
    limits, whose = Limits(), key(requests_per_minute=2)
    admit(limits, whose, 10.0, times=2)
    told = refusal(limits, whose, 10.0).headers
    assert told["x-ratelimit-limit-requests"] == "2"
    assert told["x-ratelimit-remaining-requests"] == "0"
    assert set(told) == {"Retry-After", *limits.headers(whose, 10.0)}


def test_nothing_is_left_exactly_when_the_next_is_refused():
    limits, whose = Limits(), key(requests_per_minute=7)
    now = 0.0
    for _ in range(300):
        now += 3.7
        left = int(limits.headers(whose, now).get("x-ratelimit-remaining-requests", "7"))
        if left:
            admit(limits, whose, now)
        else:
            refusal(limits, whose, now)
