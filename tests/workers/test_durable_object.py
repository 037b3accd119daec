"""How instances are made, and which handlers they have."""

from __future__ import annotations

from typing import Any

import pytest

from workers.durable_object import DurableObject, prepare_instance
from workers.entrypoint import WorkerEntrypoint, WorkflowEntrypoint, handler
from workers.env import Env
from workers.handlers import UNLIMITED, arity

CTX: Any = object()
ENV = Env()


def test_ctx_and_env_are_there_before_init() -> None:
    class Room(DurableObject):
        def __init__(self, state: Any, env: Any) -> None:
            self.seen = (self.ctx, self.env)

    assert prepare_instance(Room, CTX, ENV).seen == (CTX, ENV)


def test_init_is_optional_and_super_works() -> None:
    class Plain(DurableObject): ...

    class Careful(DurableObject):
        def __init__(self, ctx: Any, env: Any) -> None:
            super().__init__(ctx, env)
            self.ready = True

    assert prepare_instance(Plain, CTX, ENV).ctx is CTX
    assert prepare_instance(Careful, CTX, ENV).ready
    assert Careful(CTX, ENV).env is ENV


def test_an_app_may_rebind_env() -> None:
    class Room(DurableObject):
        def __init__(self, state: Any, env: Any) -> None:
            self.state = state
            self.env = "its own"  # type: ignore[assignment]

    assert prepare_instance(Room, CTX, ENV).env == "its own"


def test_classes_without_the_base_and_with_new_work() -> None:
    class Bare:
        def __init__(self, ctx: Any, env: Any) -> None:
            self.args = (ctx, env)

    class Counted(DurableObject):
        made = 0

        def __new__(cls, ctx: Any, env: Any) -> Counted:
            cls.made += 1
            return super().__new__(cls)

    assert prepare_instance(Bare, CTX, ENV).args == (CTX, ENV)
    assert prepare_instance(Counted, CTX, ENV).ctx is CTX
    assert Counted.made == 1


def test_a_failing_init_fails() -> None:
    class Room(DurableObject):
        def __init__(self, ctx: Any, env: Any) -> None:
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        prepare_instance(Room, CTX, ENV)


def test_entry_points_are_made_the_same_way() -> None:
    class Default(WorkerEntrypoint):
        async def fetch(self, request: Any) -> Any: ...

    assert prepare_instance(Default, CTX, ENV).env is ENV


def test_workflows_load_but_do_not_run() -> None:
    class Flow(WorkflowEntrypoint): ...

    with pytest.raises(NotImplementedError, match="Flow: workflows are not supported"):
        Flow(CTX, ENV)


def test_handler_leaves_the_function_alone() -> None:
    def on_fetch() -> None: ...

    assert handler(on_fetch) is on_fetch


class Base(DurableObject):
    async def fetch(self, request: Any) -> Any: ...

    def alarm(self) -> Any: ...

    webSocketError = None


class Derived(Base):
    def webSocketMessage(self, ws: Any, message: Any, *rest: Any) -> Any: ...

    def webSocketClose(
        self, ws: Any, code: int, reason: str = "", *, flag: bool = False
    ) -> Any: ...

    @staticmethod
    def queue(batch: Any) -> Any: ...

    @classmethod
    def scheduled(cls, event: Any, env: Any) -> Any: ...


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("fetch", 1),
        ("alarm", 0),
        ("webSocketMessage", UNLIMITED),
        ("webSocketClose", 3),
        ("webSocketError", None),
        ("queue", 1),
        ("scheduled", 2),
        ("missing", None),
    ],
)
def test_arity(name: str, count: int | None) -> None:
    assert arity(Derived, name) == count


def test_the_base_has_no_handlers() -> None:
    assert arity(DurableObject, "fetch") is None
