"""``fetch``: requests from inside the app to the outside world."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workers.host import current_host
from workers.request import Request

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from workers.options import FetchKwargs
    from workers.response import Response
    from workers.url import URL


async def fetch(resource: Request | URL | str, **options: Unpack[FetchKwargs]) -> Response:
    """Send a request and return the response; its body streams.

    Args:
        resource: an absolute URL or a request.
        options: ``method``, ``headers``, ``body``, ``redirect``: see
            :class:`~workers.request.Request`.

    Raises:
        TypeError: an invalid URL or option.
        OSError: the server could not be reached.
        RuntimeError: called outside any handler.

    Source: https://developers.cloudflare.com/workers/runtime-apis/fetch/
    """
    fetcher = options.pop("fetcher", None)
    if type(resource) is not Request or options:
        resource = Request(resource, **options)
    if fetcher is not None:
        answer: Response = await fetcher(resource)
        return answer
    return await current_host().fetch(resource)
