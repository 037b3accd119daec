"""The public surface: Cloudflare's names, both spellings, documented."""

from __future__ import annotations

import enum
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import workers
from workers.namespace import DurableObjectNamespace

SDK = frozenset(
    [
        "Blob",
        "BlobEnding",
        "BlobValue",
        "Body",
        "Context",
        "DurableObject",
        "FetchKwargs",
        "FetchResponse",
        "File",
        "FormData",
        "FormDataValue",
        "Headers",
        "JSBody",
        "Request",
        "RequestInitCfProperties",
        "Response",
        "WorkerEntrypoint",
        "WorkflowEntrypoint",
        "env",
        "fetch",
        "handler",
        "import_from_javascript",
        "patch_env",
        "python_from_rpc",
        "python_to_rpc",
        "waitUntil",
        "wait_until",
    ]
)

CLASSES = [
    value for name in workers.__all__ if inspect.isclass(value := getattr(workers, name))
]  # fmt: skip

# Every name of a stub that is not the stub's own is a call; a typing protocol says what is needed.
ONE_SPELLING = {workers.DurableObjectStub, workers.Context, workers.WebSocket}


def public_names(cls: type[Any]) -> list[str]:
    return [
        name
        for base in cls.__mro__
        if base.__module__.startswith("workers.")
        for name in vars(base)
        if not name.startswith("_")
    ]


def snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", name).lower()


def test_every_name_of_the_sdk_is_there() -> None:
    assert set(workers.__all__) >= SDK
    assert all(hasattr(workers, name) for name in workers.__all__)
    assert {"WebSocket", "WebSocketPair", "RpcTarget"} <= set(workers.__all__)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_camel_case_names_answer_to_snake_case(cls: type[Any]) -> None:
    names = set(public_names(cls))
    mixed = {name for name in names if name != name.lower() and not name.isupper()}
    if cls not in ONE_SPELLING and not issubclass(cls, dict | enum.Enum):
        assert {name for name in mixed if snake(name) not in names} <= {"toJSON", "valueOf"}


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_public_name_is_documented(cls: type[Any]) -> None:
    assert cls.__doc__
    for name in public_names(cls):
        value = inspect.getattr_static(cls, name)
        if isinstance(value, property | staticmethod | classmethod) or inspect.isfunction(value):
            assert inspect.getdoc(value), f"{cls.__name__}.{name} has no docstring"


def test_the_package_is_typed() -> None:
    assert (Path(workers.__file__).parent / "py.typed").exists()


def test_aliases_are_the_same_function() -> None:
    assert DurableObjectNamespace.idFromName is DurableObjectNamespace.id_from_name
    assert workers.FetchResponse.statusText is not None
