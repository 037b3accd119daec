"""A reverse proxy: every request goes to one upstream server, and its answer comes back."""

from urllib.parse import urlsplit

from workers import Response, WorkerEntrypoint, fetch


class Default(WorkerEntrypoint):
    """Passes requests, answers and WebSockets through. Nothing is held in memory as a whole."""

    async def fetch(self, request):
        here = urlsplit(request.url)
        target = self.env.UPSTREAM.rstrip("/") + here.path
        if here.query:
            target += f"?{here.query}"
        try:
            # Both bodies are streams: what the upstream does not take yet, the client keeps, and
            # the other way round. A redirect is for the client to follow.
            return await fetch(
                target,
                method=request.method,
                headers=forwarded(request.headers, here),
                body=request.body,
                redirect="manual",
            )
        except TimeoutError:
            return Response("The upstream server does not answer.\n", status=504)
        except OSError:
            return Response("The upstream server cannot be reached.\n", status=502)


def forwarded(headers, here):
    """The client's fields, and what the upstream could not know: whom the client asked."""
    told = {"x-forwarded-host": here.netloc, "x-forwarded-proto": here.scheme}
    kept = [(name, value) for name, value in headers.items() if name.lower() not in told]
    return [*kept, *told.items()]
