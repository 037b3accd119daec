from workers import DurableObject, Response, WebSocketPair, WorkerEntrypoint


class Default(WorkerEntrypoint):
    """Hands WebSocket requests to the one object named "foo"."""

    async def fetch(self, request):
        if request.url.endswith("/websocket"):
            if request.headers.get("Upgrade") != "websocket":
                return Response("Durable Object expected Upgrade: websocket", status=426)

            id = self.env.WEBSOCKET_SERVER.idFromName("foo")
            stub = self.env.WEBSOCKET_SERVER.get(id)
            return await stub.fetch(request)

        return Response(
            None,
            status=400,
            status_text="Bad Request",
            headers={"Content-Type": "text/plain"},
        )


class WebSocketServer(DurableObject):
    """Tells every client that speaks how many are connected."""

    def __init__(self, ctx, env):
        super().__init__(ctx, env)
        # Regular sockets end with the object, so a count that starts at 0 here is always right.
        self.connected = 0

    async def fetch(self, request):
        client, server = WebSocketPair()
        server.accept()
        self.connected += 1

        def on_message(event):
            server.send(f"[Durable Object] currentlyConnectedWebSockets: {self.connected}")

        def on_close(event):
            self.connected -= 1
            # The code is the client's own. 1005 (none given) and 1006 (it vanished) cannot be
            # sent: closing with them ends the connection without a code.
            server.close(event.code, "Durable Object is closing WebSocket")

        server.addEventListener("message", on_message)
        server.addEventListener("close", on_close)

        return Response(None, status=101, web_socket=client)
