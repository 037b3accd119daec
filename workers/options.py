"""Typing names of Cloudflare's SDK: what ``fetch``, ``Request`` and ``Response`` accept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypedDict

from workers.body import BodyInit

if TYPE_CHECKING:
    from http import HTTPMethod

    from workers.headers import HeadersInit

Body: TypeAlias = BodyInit
"""What may be passed as a body."""
JSBody: TypeAlias = BodyInit
"""The same: there is no JavaScript here."""


class Context(Protocol):
    """What an entry point can rely on in its ``ctx``.

    Source: https://developers.cloudflare.com/workers/runtime-apis/context/
    """

    def waitUntil(self, other: Any) -> None:
        """Keep the request's work alive until ``other`` is done."""


class RequestInitCfProperties(TypedDict, total=False):
    """``cf`` of a request. Accepted for compatibility; Cloudflare's network is not here.

    Source: https://developers.cloudflare.com/workers/runtime-apis/request/#the-cf-property-requestinitcfproperties
    """

    apps: bool | None
    cacheEverything: bool | None
    cacheKey: str | None
    cacheTags: list[str] | None
    cacheTtl: int
    cacheTtlByStatus: dict[str, int]
    image: Any
    mirage: bool | None
    polish: str | None
    resolveOverride: str | None
    scrapeShield: bool | None
    webp: bool | None


class FetchKwargs(TypedDict, total=False):
    """Options of ``fetch``, ``stub.fetch`` and ``Request``.

    Source: https://developers.cloudflare.com/workers/runtime-apis/request/#options
    """

    headers: HeadersInit | None
    body: BodyInit | None
    method: HTTPMethod | str | None
    redirect: str | None
    cf: RequestInitCfProperties | None
    signal: Any
    cache: str | None
    credentials: str | None
    integrity: str | None
    keepalive: bool | None
    mode: str | None
    referrer: str | None
    referrerPolicy: str | None
    fetcher: Any
