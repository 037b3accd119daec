"""Rules of `local.inspection`: what would fail silently at run time is said before."""

from __future__ import annotations

import textwrap
from types import ModuleType

import pytest

from local.findings import Finding
from local.inspection import inspect_app

GOOD = """
class Default(WorkerEntrypoint):
    async def fetch(self, request): ...

class Room(DurableObject):
    def __init__(self, ctx, env):
        super().__init__(ctx, env)
    async def fetch(self, request): ...
"""


def findings(source: str, **bindings: str) -> list[Finding]:
    module = ModuleType("entry")
    module.__file__ = "entry.py"
    code = "from workers import DurableObject, WorkerEntrypoint\n" + textwrap.dedent(source)
    exec(code, module.__dict__)
    return list(inspect_app(module, bindings))


def bad(source: str, **bindings: str) -> str:
    return "\n".join(str(f) for f in findings(source, **bindings) if f.level != "ok")


def test_a_good_app_gets_no_complaint() -> None:
    assert bad(GOOD, ROOMS="Room") == ""
    assert [f.message for f in findings(GOOD, ROOMS="Room")] == [
        "entry point Default.fetch",
        "binding ROOMS -> class Room",
    ]


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("", "there is no class Default(WorkerEntrypoint)"),
        ("class Main(WorkerEntrypoint): ...", "Rename Main to Default."),
        ("class Default: ...", "Default is not a subclass of WorkerEntrypoint"),
        ("Default = 5", "Default is not a subclass of WorkerEntrypoint"),
    ],
)
def test_a_wrong_entry_point_is_an_error(source: str, complaint: str) -> None:
    assert complaint in bad(source)


@pytest.mark.parametrize(
    ("class_name", "complaint"),
    [
        ("Rooms", "Did you mean Room?"),
        ("Zebra", "Define class Zebra(DurableObject)."),
        ("Default", "Default, which is not a subclass of DurableObject"),
        ("NUMBER", "NUMBER, which is not a class"),
    ],
)
def test_a_binding_to_no_object_class_is_an_error(class_name: str, complaint: str) -> None:
    said = bad(GOOD + "\nNUMBER = 5\n", ROOMS=class_name)
    article = "" if class_name in {"Default", "NUMBER"} else "class "
    assert f"binding ROOMS names {article}{class_name}" in said
    assert complaint in said


def test_an_object_class_without_a_binding_is_a_warning() -> None:
    assert "class Room(DurableObject) has no binding" in bad(GOOD)


@pytest.mark.parametrize(
    ("method", "complaint"),
    [
        ("def __init__(self): ...", "__init__ cannot be called as (self, ctx, env)"),
        ("def __init__(self, ctx, env, more): ...", "__init__ cannot be called"),
        ("def websocketMessage(self, ws, m): ...", "Did you mean webSocketMessage?"),
        ("def webSocketMesage(self, ws, m): ...", "Did you mean webSocketMessage?"),
        ("def webSocketMessage(self, ws, m, x): ...", "requires more than the 2 arguments"),
        ("def alarm(self, info, *, more): ...", "requires more than the 1 argument it"),
        ("async def alarm(self):\n        yield", "is a generator"),
        ("fetch = 5", "Room.fetch is not a method"),
    ],
)
def test_a_handler_that_would_never_work_is_said(method: str, complaint: str) -> None:
    source = f"""
class Default(WorkerEntrypoint):
    def fetch(self, request): ...

class Room(DurableObject):
    {method}
"""
    assert complaint in bad(source, ROOMS="Room")


@pytest.mark.parametrize(
    "method",
    [
        "def alarm(self): ...",
        "def alarm(self, info, *more, **named): ...",
        "def web_socket_message(self, ws, message): ...",
        "def fetch(self, request, env=None, ctx=None): ...",
        "def message(self): ...",
        "def fetch_all(self): ...",
        "def __init__(self, *args): ...",
    ],
)
def test_what_works_gets_no_complaint(method: str) -> None:
    source = f"""
class Default(WorkerEntrypoint):
    def fetch(self, request): ...

class Room(DurableObject):
    {method}
"""
    assert bad(source, ROOMS="Room") == ""
