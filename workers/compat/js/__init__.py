"""What Cloudflare's Python programs import from ``js``, in Python.

Constructors are called with ``.new(...)``, as in Pyodide. There is no JavaScript engine: a name
that is not here does not exist. https://developers.cloudflare.com/workers/languages/python/ffi/
"""

from __future__ import annotations

import sys
from typing import Any, NoReturn

from workers.auto_response import WebSocketRequestResponsePair
from workers.blob import Blob, File
from workers.compat.js.buffers import ArrayBuffer, Uint8Array
from workers.compat.js.collections import Array, Map, Object, Set
from workers.compat.js.console import console
from workers.compat.js.date import Date
from workers.compat.js.errors import Error, RangeError, SyntaxError, TypeError  # noqa: A004
from workers.compat.js.numbers import Infinity, NaN, Number, isNaN, parseFloat, parseInt
from workers.compat.js.runtime import (
    clearInterval,
    clearTimeout,
    crypto,
    fetch,
    performance,
    queueMicrotask,
    scheduler,
    setInterval,
    setTimeout,
    structuredClone,
)
from workers.compat.js.text import (
    JSON,
    String,
    TextDecoder,
    TextEncoder,
    atob,
    btoa,
    decodeURIComponent,
    encodeURIComponent,
)
from workers.context import DurableObjectState, ExecutionContext
from workers.env import Env
from workers.forms import FormData
from workers.headers import Headers
from workers.request import Request
from workers.response import Response
from workers.search_params import URLSearchParams
from workers.streams import ReadableStream
from workers.url import URL
from workers.websocket import WebSocket, WebSocketPair

undefined = None
globalThis: Any = sys.modules[__name__]  # noqa: N816

__all__ = [
    "JSON",
    "URL",
    "Array",
    "ArrayBuffer",
    "Blob",
    "Date",
    "DurableObjectState",
    "Env",
    "Error",
    "ExecutionContext",
    "File",
    "FormData",
    "Headers",
    "Infinity",
    "Map",
    "NaN",
    "Number",
    "Object",
    "RangeError",
    "ReadableStream",
    "Request",
    "Response",
    "Set",
    "String",
    "SyntaxError",
    "TextDecoder",
    "TextEncoder",
    "TypeError",
    "URLSearchParams",
    "Uint8Array",
    "WebSocket",
    "WebSocketPair",
    "WebSocketRequestResponsePair",
    "atob",
    "btoa",
    "clearInterval",
    "clearTimeout",
    "console",
    "crypto",
    "decodeURIComponent",
    "encodeURIComponent",
    "fetch",
    "globalThis",
    "isNaN",
    "parseFloat",
    "parseInt",
    "performance",
    "queueMicrotask",
    "scheduler",
    "setInterval",
    "setTimeout",
    "structuredClone",
    "undefined",
]


def __getattr__(name: str) -> NoReturn:
    if name.startswith("__"):
        raise AttributeError(name)
    raise AttributeError(
        f"module 'js' has no {name!r} here: Limpet has no JavaScript engine, "
        "only the names that Cloudflare's Python programs use"
    )
