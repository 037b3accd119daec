// Cloudflare's public example of a Durable Object that serves WebSockets, as the reference program,
// and beside it a room whose members get every message, for the broadcast scenario.
import { DurableObject } from "cloudflare:workers";

export class WebSocketServer extends DurableObject {
  constructor(ctx, env) {
    super(ctx, env);
    this.currentlyConnectedWebSockets = 0;
  }

  async fetch(request) {
    const webSocketPair = new WebSocketPair();
    const [client, server] = Object.values(webSocketPair);
    server.accept();
    this.currentlyConnectedWebSockets += 1;
    server.addEventListener("message", (event) => {
      server.send(
        `[Durable Object] currentlyConnectedWebSockets: ${this.currentlyConnectedWebSockets}`,
      );
    });
    server.addEventListener("close", (cls) => {
      this.currentlyConnectedWebSockets -= 1;
      server.close(cls.code, "Durable Object is closing WebSocket");
    });
    return new Response(null, { status: 101, webSocket: client });
  }
}

export class Room extends DurableObject {
  constructor(ctx, env) {
    super(ctx, env);
    this.members = new Set();
  }

  async fetch(request) {
    const [client, server] = Object.values(new WebSocketPair());
    server.accept();
    this.members.add(server);
    server.addEventListener("message", (event) => {
      for (const member of this.members) member.send(event.data);
    });
    server.addEventListener("close", (cls) => {
      this.members.delete(server);
      server.close(cls.code, "Durable Object is closing WebSocket");
    });
    return new Response(null, { status: 101, webSocket: client });
  }
}

// Two objects for the rpc scenario: one calls the other, 64 calls in flight.
const RPC_CALLS = 4096;
const IN_FLIGHT = 64;

export class Callee extends DurableObject {
  add(a, b) {
    return a + b;
  }
}

export class Caller extends DurableObject {
  async run() {
    const callee = this.env.CALLEE.get(this.env.CALLEE.idFromName("one"));
    let sum = 0;
    const caller = async () => {
      for (let i = 0; i < RPC_CALLS / IN_FLIGHT; i++) sum += await callee.add(i, 1);
    };
    await Promise.all(Array.from({ length: IN_FLIGHT }, caller));
    return sum;
  }
}

export default {
  async fetch(request, env, ctx) {
    const { pathname } = new URL(request.url);
    if (pathname === "/rpc") {
      const sum = await env.CALLER.get(env.CALLER.idFromName("one")).run();
      return new Response(`${RPC_CALLS} calls, ${sum}`);
    }
    if (pathname.startsWith("/room/")) {
      return env.ROOM.get(env.ROOM.idFromName(pathname)).fetch(request);
    }
    if (request.url.endsWith("/websocket")) {
      const upgradeHeader = request.headers.get("Upgrade");
      if (!upgradeHeader || upgradeHeader !== "websocket") {
        return new Response("Durable Object expected Upgrade: websocket", { status: 426 });
      }
      const id = env.WEBSOCKET_SERVER.idFromName("foo");
      const stub = env.WEBSOCKET_SERVER.get(id);
      return stub.fetch(request);
    }
    return new Response(null, {
      status: 400,
      statusText: "Bad Request",
      headers: { "Content-Type": "text/plain" },
    });
  },
};
