"""Counters by name, used through RPC: the entry point calls them, and they call each other."""

from urllib.parse import parse_qs, urlparse

from workers import DurableObject, Response, WorkerEntrypoint


class TooLowError(Exception):
    """A counter does not go below zero."""


class Default(WorkerEntrypoint):
    """Turns each request into a call."""

    async def fetch(self, request):
        url = urlparse(request.url)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        if "name" not in query:
            return Response("Select a counter by name: ?name=A", status=400)
        counter = self.env.COUNTERS.getByName(query["name"])
        try:
            match url.path:
                case "/":
                    return Response(str(await counter.value()))
                case "/increment":
                    return Response(str(await counter.add(int(query.get("by", "1")))))
                case "/decrement":
                    return Response(str(await counter.add(-int(query.get("by", "1")))))
                case "/move":
                    amount = int(query["amount"])
                    return Response.json(await counter.move(query["to"], amount=amount))
                case "/count":
                    return await self.count(counter, int(query["to"]))
                case _:
                    return Response("Not found", status=404)
        except TooLowError as error:
            # Raised in the object, maybe in another process: it is the same class here.
            return Response(f"{error}\n", status=409)

    async def count(self, counter, to):
        """The counter calls back at each step: a function is passed by reference."""
        lines = []
        await counter.count_to(to, lambda value: lines.append(f"{value}\n"))
        return Response("".join(lines))


class Counter(DurableObject):
    """One counter. Its memory is this object; each public method can be called through a stub."""

    def __init__(self, ctx, env):
        super().__init__(ctx, env)
        self.count = 0

    def value(self):
        return self.count

    def add(self, amount):
        if self.count + amount < 0:
            name = self.ctx.id.name
            raise TooLowError(f"{name} is at {self.count}: it cannot go {-amount} lower")
        self.count += amount
        return self.count

    async def move(self, to, *, amount):
        """Take from this counter and give to another one, wherever that lives."""
        mine = self.add(-amount)
        other = self.env.COUNTERS.getByName(to)
        return {self.ctx.id.name: mine, to: await other.add(amount)}

    async def count_to(self, to, on_step):
        while self.count < to:
            await on_step(self.add(1))
