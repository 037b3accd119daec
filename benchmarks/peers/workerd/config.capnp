# The programs on workerd. The port and the folder are given on the command line:
#   workerd serve config.capnp --socket-addr http=127.0.0.1:PORT --directory-path disk=FOLDER
using Workerd = import "/workerd/workerd.capnp";

const config :Workerd.Config = (
  services = [
    (name = "main", worker = .reference),
    (name = "disk", disk = (writable = true)),
  ],
  sockets = [ (name = "http", address = "127.0.0.1:0", http = (), service = "main") ],
);

const reference :Workerd.Worker = (
  modules = [ (name = "worker", esModule = embed "worker.js") ],
  # Before the date at which workerd began to answer a Close by itself (web_socket_auto_reply_to_close),
  # so that the program's own close code and reason reach the client.
  compatibilityDate = "2024-09-23",
  durableObjectNamespaces = [
    (className = "WebSocketServer", uniqueKey = "limpet-benchmark-websocket-server"),
    (className = "Room", uniqueKey = "limpet-benchmark-room"),
    (className = "Sleeper", uniqueKey = "limpet-benchmark-sleeper"),
    (className = "Cell", uniqueKey = "limpet-benchmark-cell", enableSql = true),
    (className = "Caller", uniqueKey = "limpet-benchmark-caller"),
    (className = "Callee", uniqueKey = "limpet-benchmark-callee"),
  ],
  durableObjectStorage = (localDisk = "disk"),
  bindings = [
    (name = "WEBSOCKET_SERVER", durableObjectNamespace = "WebSocketServer"),
    (name = "ROOM", durableObjectNamespace = "Room"),
    (name = "SLEEPER", durableObjectNamespace = "Sleeper"),
    (name = "CELL", durableObjectNamespace = "Cell"),
    (name = "CALLER", durableObjectNamespace = "Caller"),
    (name = "CALLEE", durableObjectNamespace = "Callee"),
  ],
);
