// Cloudflare's public example of a Durable Object that serves WebSockets, as the reference program,
// and beside it what the other scenarios need: rooms with hibernatable sockets, objects that sleep,
// objects that store, and two that call each other.
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
  async fetch(request) {
    const [client, server] = Object.values(new WebSocketPair());
    this.ctx.acceptWebSocket(server);
    return new Response(null, { status: 101, webSocket: client });
  }

  async webSocketMessage(ws, message) {
    for (const member of this.ctx.getWebSockets()) member.send(message);
  }

  async webSocketClose(ws, code, reason, wasClean) {
    ws.close(code, "Durable Object is closing WebSocket");
  }
}

// Echoes; a plain request is answered with how many messages this life of it has seen.
export class Sleeper extends DurableObject {
  constructor(ctx, env) {
    super(ctx, env);
    this.messages = 0;
  }

  async fetch(request) {
    if (request.headers.get("Upgrade") !== "websocket") return new Response(`${this.messages}`);
    const [client, server] = Object.values(new WebSocketPair());
    this.ctx.acceptWebSocket(server);
    return new Response(null, { status: 101, webSocket: client });
  }

  async webSocketMessage(ws, message) {
    this.messages += 1;
    ws.send(message);
  }

  async webSocketClose(ws, code, reason, wasClean) {
    ws.close(code, "Durable Object is closing WebSocket");
  }
}

// One count: it is in memory, and each change of it is in storage before it is told.
export class Cell extends DurableObject {
  constructor(ctx, env) {
    super(ctx, env);
    this.count = 0;
  }

  async fetch(request) {
    const storage = this.ctx.storage;
    if (new URL(request.url).pathname.startsWith("/get/")) {
      return new Response(`count ${(await storage.get("count")) ?? 0}`);
    }
    this.count += 1;
    await storage.put("count", this.count);
    return new Response(`count ${this.count}`);
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
    if (pathname.startsWith("/sleeper/")) {
      return env.SLEEPER.get(env.SLEEPER.idFromName(pathname)).fetch(request);
    }
    const [, verb, name] = pathname.split("/");
    if (verb === "put" || verb === "get") {
      return env.CELL.get(env.CELL.idFromName(name)).fetch(request);
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
