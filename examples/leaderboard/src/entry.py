"""Leaderboards by name: every board is one object, with its games in its own SQL database.

Whoever watches a board has a hibernatable socket: a board where nothing happens costs no memory,
and nobody is disconnected when its process is restarted, crashes or takes new code.
"""

import json
import time
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from workers import DurableObject, Response, WebSocketPair, WorkerEntrypoint

PAGE = (Path(__file__).parent / "index.html").read_text()
TOP_LENGTH = 10
MAX_LENGTH = 100
MAX_RESULTS = 1000
MAX_NAME_CHARS = 32
MAX_SCORE = 2**53 - 1  # larger ones are not exact in a browser
DAY_MS = 86_400_000
WINDOWS_MS = {"all": None, "day": DAY_MS, "week": 7 * DAY_MS}

SCHEMA = """
CREATE TABLE IF NOT EXISTS games (
    id INTEGER PRIMARY KEY, player TEXT NOT NULL, score INTEGER NOT NULL, at_ms INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS games_by_player ON games (player, score);
CREATE INDEX IF NOT EXISTS games_by_time ON games (at_ms);
CREATE TABLE IF NOT EXISTS players (
    name TEXT PRIMARY KEY, best INTEGER NOT NULL, best_game INTEGER NOT NULL, games INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS players_by_best ON players (best DESC, best_game);
"""

# The same score is the same rank; whoever had it first is shown first.
STANDINGS = """
SELECT rank() OVER (ORDER BY best DESC) AS rank, name AS player, best AS score, games
FROM players ORDER BY best DESC, best_game LIMIT ? OFFSET ?
"""
STANDINGS_SINCE = """
WITH ranked AS (
    SELECT id, player, score, count(*) OVER (PARTITION BY player) AS games,
           row_number() OVER (PARTITION BY player ORDER BY score DESC, id) AS place
    FROM games WHERE at_ms > ?
)
SELECT rank() OVER (ORDER BY score DESC) AS rank, player, score, games
FROM ranked WHERE place = 1 ORDER BY score DESC, id LIMIT ? OFFSET ?
"""
RANK = "SELECT 1 + count(*) AS rank FROM players WHERE best > ?"
RECORD = """
INSERT INTO players VALUES (?1, ?2, ?3, 1) ON CONFLICT (name) DO UPDATE SET
    games = games + 1,
    best_game = CASE WHEN excluded.best > best THEN excluded.best_game ELSE best_game END,
    best = max(best, excluded.best)
"""
NEIGHBOURS = """
WITH board AS (
    SELECT rank() OVER (ORDER BY best DESC) AS rank, name AS player, best AS score,
           row_number() OVER (ORDER BY best DESC, best_game) AS place
    FROM players
)
SELECT rank, player, score FROM board
WHERE abs(place - (SELECT place FROM board WHERE player = ?)) <= 2 ORDER BY place
"""


class BadResultError(Exception):
    """Not a result that can be recorded."""


class Leaderboard(DurableObject):
    def __init__(self, ctx, env):
        super().__init__(ctx, env)
        self.sql = ctx.storage.sql
        self.sql.exec(SCHEMA)
        self.told = None

    async def fetch(self, request):
        client, server = WebSocketPair()
        self.ctx.acceptWebSocket(server)
        server.send(self.news())
        return Response(None, status=101, web_socket=client)

    def webSocketMessage(self, ws, message):
        ws.send(self.news())

    def record(self, results):
        """Record all of these results, or none if one is bad; then tell whoever watches."""
        at_ms = int(time.time() * 1000)
        self.ctx.storage.transactionSync(lambda: [self.record_one(each, at_ms) for each in results])
        self.tell()
        return [self.place_of(player) for player in dict.fromkeys(r["player"] for r in results)]

    def record_one(self, result, at_ms):
        player, score = checked(result)
        game = (
            self.sql.exec(
                "INSERT INTO games (player, score, at_ms) VALUES (?, ?, ?) RETURNING id",
                player,
                score,
                at_ms,
            )
            .one()
            .id
        )
        self.sql.exec(RECORD, player, score, game)

    def remove(self, player):
        def remove():
            self.sql.exec("DELETE FROM games WHERE player = ?", player)
            return self.sql.exec("DELETE FROM players WHERE name = ?", player).rowsWritten > 0

        removed = self.ctx.storage.transactionSync(remove)
        self.tell()
        return removed

    def standings(self, window_ms, limit, offset):
        """The best score of each player, ever or within a window of time, with ranks."""
        if window_ms is None:
            rows = self.sql.exec(STANDINGS, limit, offset)
        else:
            since_ms = int(time.time() * 1000) - window_ms
            rows = self.sql.exec(STANDINGS_SINCE, since_ms, limit, offset)
        return [dict(row) for row in rows]

    def player(self, name):
        """A player's place, neighbours and last games; None if nobody of that name has played."""
        place = self.place_of(name)
        if place is None:
            return None
        games = self.sql.exec(
            "SELECT score, at_ms FROM games WHERE player = ? ORDER BY id DESC LIMIT 10", name
        )
        return {
            **place,
            "neighbours": [dict(row) for row in self.sql.exec(NEIGHBOURS, name)],
            "last": [dict(row) for row in games],
        }

    def place_of(self, name):
        found = self.sql.exec("SELECT best, games FROM players WHERE name = ?", name).toArray()
        if not found:
            return None
        best, games = found[0].best, found[0].games
        rank = self.sql.exec(RANK, best).one().rank
        return {"player": name, "rank": rank, "score": best, "games": games}

    def news(self):
        players = self.sql.exec("SELECT count(*) AS n FROM players").one().n
        top = self.standings(None, TOP_LENGTH, 0)
        return json.dumps({"board": self.ctx.id.name, "players": players, "top": top})

    def tell(self):
        """Send the top to whoever watches, if it is not what they were told last."""
        news = self.news()
        if news != self.told:
            self.told = news
            for ws in self.ctx.getWebSockets():
                ws.send(news)


def checked(result):
    """The player and the score of a result."""
    if not isinstance(result, dict):
        raise BadResultError('A result is {"player": "Ada", "score": 12}.')
    player, score = result.get("player"), result.get("score")
    if not isinstance(player, str) or not 0 < len(player) <= MAX_NAME_CHARS or not player.strip():
        raise BadResultError(f"A player is a name of 1 to {MAX_NAME_CHARS} characters.")
    if type(score) is not int or abs(score) > MAX_SCORE:
        raise BadResultError(f"A score is a whole number of at most {MAX_SCORE}.")
    return player, score


class Default(WorkerEntrypoint):
    async def fetch(self, request):
        url = urlsplit(request.url)
        if url.path == "/":
            return Response(PAGE, headers={"Content-Type": "text/html; charset=utf-8"})
        match [unquote(part) for part in url.path.split("/")[1:]]:
            case ["boards", name, *rest] if name:
                board = self.env.BOARDS.getByName(name)
            case _:
                return refused("There is /, and /boards/NAME.", 404)
        try:
            match request.method, rest:
                case "GET", []:
                    if request.headers.get("Upgrade", "").lower() == "websocket":
                        return await board.fetch(request)
                    query = {key: values[0] for key, values in parse_qs(url.query).items()}
                    return Response.json(await board.standings(*page_of(query)))
                case "POST", ["scores"]:
                    return await self.record(board, await request.text())
                case "GET", ["players", player]:
                    found = await board.player(player)
                    return Response.json(found) if found else refused("No such player.", 404)
                case "DELETE", ["players", player]:
                    removed = await board.remove(player)
                    return (
                        Response(None, status=204) if removed else refused("No such player.", 404)
                    )
                case _:
                    return refused("Not found, see README.md.", 404)
        except BadResultError as error:
            return refused(str(error), 400)

    async def record(self, board, text):
        try:
            results = json.loads(text)
        except ValueError:
            raise BadResultError("Send JSON.") from None
        alone = not isinstance(results, list)
        results = [results] if alone else results
        if not 0 < len(results) <= MAX_RESULTS:
            raise BadResultError(f"Send 1 to {MAX_RESULTS} results at a time.")
        places = await board.record(results)
        return Response.json(places[0] if alone else places, status=201)


def page_of(query):
    """Window, limit and offset of a request."""
    window = query.get("window", "all")
    if window not in WINDOWS_MS:
        raise BadResultError(f"window is one of {', '.join(WINDOWS_MS)}.")
    try:
        limit, offset = int(query.get("limit", TOP_LENGTH)), int(query.get("offset", 0))
    except ValueError:
        raise BadResultError("limit and offset are whole numbers.") from None
    if not 0 < limit <= MAX_LENGTH or not 0 <= offset <= MAX_SCORE:
        raise BadResultError(f"limit is 1 to {MAX_LENGTH}, offset 0 or more.")
    return WINDOWS_MS[window], limit, offset


def refused(text, status):
    return Response.json({"error": text}, status=status)
