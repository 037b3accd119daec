"""The API of Cloudflare's Python Workers with Durable Objects, on CPython.

``from workers import DurableObject, WorkerEntrypoint, Response, …`` works as in Cloudflare's own
SDK (https://developers.cloudflare.com/workers/languages/python/). Names are Cloudflare's; each in
camelCase also answers to its snake_case form.
"""

from __future__ import annotations

from workers.alarm_info import AlarmInvocationInfo
from workers.attachment import Attachments as _Attachments  # noqa: F401 - sockets use it
from workers.auto_response import WebSocketRequestResponsePair
from workers.blob import Blob, BlobEnding, BlobValue, File
from workers.context import DurableObjectState, ExecutionContext
from workers.convert import import_from_javascript, python_from_rpc, python_to_rpc
from workers.durable_object import DurableObject
from workers.entrypoint import WorkerEntrypoint, WorkflowEntrypoint, handler
from workers.env import Env, env, patch_env, wait_until, waitUntil
from workers.exceptions import (
    DataCloneError,
    DurableObjectAbort,
    InvalidAccessError,
    JsException,
    RemoteError,
)
from workers.fetch import fetch
from workers.forms import FormData, FormDataValue
from workers.headers import Headers
from workers.namespace import DurableObjectId, DurableObjectNamespace, DurableObjectStub
from workers.options import Body, Context, FetchKwargs, JSBody, RequestInitCfProperties
from workers.request import Request
from workers.response import FetchResponse, Response
from workers.rpc import RpcPromise, RpcStub, RpcTarget
from workers.search_params import URLSearchParams
from workers.streams import ReadableStream
from workers.url import URL
from workers.websocket import WebSocket, WebSocketPair

__all__ = [
    "URL",
    "AlarmInvocationInfo",
    "Blob",
    "BlobEnding",
    "BlobValue",
    "Body",
    "Context",
    "DataCloneError",
    "DurableObject",
    "DurableObjectAbort",
    "DurableObjectId",
    "DurableObjectNamespace",
    "DurableObjectState",
    "DurableObjectStub",
    "Env",
    "ExecutionContext",
    "FetchKwargs",
    "FetchResponse",
    "File",
    "FormData",
    "FormDataValue",
    "Headers",
    "InvalidAccessError",
    "JSBody",
    "JsException",
    "ReadableStream",
    "RemoteError",
    "Request",
    "RequestInitCfProperties",
    "Response",
    "RpcPromise",
    "RpcStub",
    "RpcTarget",
    "URLSearchParams",
    "WebSocket",
    "WebSocketPair",
    "WebSocketRequestResponsePair",
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
