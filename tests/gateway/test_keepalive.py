from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from gateway.keepalive import Action, Decision, Keepalive

RULE = Keepalive(interval_s=20.0, timeout_s=10.0)


def test_the_rule() -> None:
    assert RULE.decide(now=19.9, heard_at=0.0, pinged_at=0.0) == Decision(Action.WAIT, 20.0)
    assert RULE.decide(now=20.0, heard_at=0.5, pinged_at=0.0) == Decision(Action.WAIT, 20.5)
    assert RULE.decide(now=21.0, heard_at=1.0, pinged_at=0.0) == Decision(Action.PING, 31.0)
    assert RULE.decide(now=30.9, heard_at=1.0, pinged_at=21.0) == Decision(Action.WAIT, 31.0)
    assert RULE.decide(now=31.0, heard_at=1.0, pinged_at=21.0) == Decision(Action.DROP, math.inf)
    assert RULE.decide(now=31.0, heard_at=25.0, pinged_at=21.0) == Decision(Action.WAIT, 45.0)


def test_off() -> None:
    assert Keepalive(0.0, 10.0).decide(1e9, 0.0, 0.0) == Decision(Action.WAIT, math.inf)


@given(st.floats(0.5, 100), st.floats(0.1, 100), st.floats(0, 300))
def test_a_silent_client_is_pinged_once_and_dropped_in_time(
    interval_s: float, timeout_s: float, heard_at: float
) -> None:
    rule = Keepalive(interval_s, timeout_s)
    now, pinged_at, pings = heard_at, 0.0, 0
    while True:
        action, again_at = rule.decide(now, heard_at, pinged_at)
        if action is Action.DROP:
            break
        if action is Action.PING:
            pinged_at, pings = now, pings + 1
        assert again_at > now
        now = again_at
    assert pings == 1
    assert now >= heard_at + interval_s
    assert now <= heard_at + interval_s + timeout_s + 1e-6
