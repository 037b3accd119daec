"""``env``: bindings, and what a misspelt one is answered."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import workers
from tests.workers.fakes import FakeHost
from workers.env import Env, env, patch_env, wait_until
from workers.host import current_host, enter_host, leave_host, set_process_host


@pytest.fixture
def host() -> Iterator[FakeHost]:
    host = FakeHost(ROOMS="rooms", KEY="k")
    token = enter_host(host)
    yield host
    leave_host(token)


def test_attributes_and_items() -> None:
    bindings = Env({"ROOMS": 1, "KEY": "v"})
    assert bindings.ROOMS == bindings["ROOMS"] == 1
    assert list(bindings) == ["ROOMS", "KEY"]
    assert len(bindings) == 2
    assert "KEY" in bindings
    assert "_declared_in" not in bindings
    assert getattr(bindings, "OTHER", None) is None


def test_a_misspelt_binding_is_answered_with_the_right_one() -> None:
    bindings = Env({"ROOMS": 1}, "wrangler.toml")
    with pytest.raises(AttributeError) as caught:
        _ = bindings.ROMS
    assert str(caught.value) == (
        "env has no binding 'ROMS': did you mean 'ROOMS'? Bindings are declared in wrangler.toml "
        "under durable_objects.bindings, variables under vars."
    )
    with pytest.raises(AttributeError, match="did you mean 'ROOMS'"):
        _ = bindings.rooms
    with pytest.raises(KeyError, match="env has no binding 'XYZ'"):
        bindings["XYZ"]


def test_the_module_env_is_that_of_the_running_code(host: FakeHost) -> None:
    assert workers.env.ROOMS == env["ROOMS"] == "rooms"
    assert list(env) == ["ROOMS", "KEY"]
    assert "KEY" in env
    with pytest.raises(AttributeError, match="did you mean 'ROOMS'"):
        _ = env.ROMS


def test_patch_env(host: FakeHost) -> None:
    with patch_env({"ROOMS": "fake"}, EXTRA=1):
        assert (env.ROOMS, env.EXTRA, env.KEY) == ("fake", 1, "k")
        assert len(env) == 3
        with patch_env([("ROOMS", "inner")]):
            assert env.ROOMS == "inner"
        assert env["ROOMS"] == "fake"
    assert env.ROOMS == "rooms"


def test_wait_until_goes_to_the_host(host: FakeHost) -> None:
    wait_until("work")
    assert host.waited == ["work"]
    assert workers.waitUntil is workers.wait_until


def test_outside_an_app_the_error_says_so() -> None:
    with pytest.raises(RuntimeError, match="works only inside a running app"):
        _ = env.ROOMS


def test_module_level_code_is_served_by_the_process(host: FakeHost) -> None:
    outer = FakeHost(AT_IMPORT=1)
    set_process_host(outer)
    try:
        assert current_host() is host
        token = enter_host(None)  # type: ignore[arg-type]
        assert env.AT_IMPORT == 1
        leave_host(token)
    finally:
        set_process_host(None)
