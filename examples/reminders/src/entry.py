"""Lists of reminders: each list is one object, and its alarm is set to the earliest of them.

An alarm is kept with the object's data. So a reminder comes although the object sleeps, and though
the processes were killed and started again meanwhile; if they were away at its time, it comes late.
"""

import datetime as dt
import json
import time
from pathlib import Path
from urllib.parse import unquote, urlsplit

from workers import DurableObject, Response, WebSocketPair, WorkerEntrypoint

PAGE = (Path(__file__).parent / "index.html").read_text()
MAX_REMINDERS = 1000
MAX_PAST = 50
MAX_TEXT_CHARS = 500
MAX_NAME_CHARS = 64
LEAST_EVERY_S = 1
MOST_S = 100 * 366 * 86_400

SCHEMA = """
CREATE TABLE IF NOT EXISTS reminders (
    id INTEGER PRIMARY KEY AUTOINCREMENT, text TEXT NOT NULL, due_ms INTEGER NOT NULL, every_s REAL
);
CREATE INDEX IF NOT EXISTS reminders_by_time ON reminders (due_ms);
CREATE TABLE IF NOT EXISTS past (
    id INTEGER PRIMARY KEY AUTOINCREMENT, text TEXT NOT NULL, due_ms INTEGER NOT NULL,
    rang_ms INTEGER NOT NULL
);
"""


class BadReminderError(Exception):
    """Not a reminder that can be kept."""


class ReminderList(DurableObject):
    def __init__(self, ctx, env):
        super().__init__(ctx, env)
        self.sql = ctx.storage.sql
        self.sql.exec(SCHEMA)

    async def fetch(self, request):
        """Whoever watches the list has a socket that holds while the object sleeps."""
        client, server = WebSocketPair()
        self.ctx.acceptWebSocket(server)
        server.send(json.dumps(self.all()))
        return Response(None, status=101, web_socket=client)

    async def add(self, wanted):
        """Keep a reminder, and see that it comes."""
        text, due_ms, every_s = read(wanted, now_ms())
        if self.sql.exec("SELECT count(*) AS n FROM reminders").one().n >= MAX_REMINDERS:
            raise BadReminderError(f"a list has at most {MAX_REMINDERS} reminders")
        row = self.sql.exec(
            "INSERT INTO reminders (text, due_ms, every_s) VALUES (?, ?, ?) RETURNING *",
            text,
            due_ms,
            every_s,
        ).one()
        await self.set_alarm()
        self.tell()
        return dict(row)

    async def remove(self, reminder_id):
        """Drop a reminder; whether there was one."""
        gone = self.sql.exec("DELETE FROM reminders WHERE id = ? RETURNING id", reminder_id)
        if not gone.toArray():
            return False
        await self.set_alarm()
        self.tell()
        return True

    async def alarm(self, info):
        """Some reminders are due. What is written here, and the alarm itself, are one commit."""
        now = now_ms()
        due = self.sql.exec("SELECT * FROM reminders WHERE due_ms <= ? ORDER BY due_ms", now)
        for row in due.toArray():
            self.sql.exec(
                "INSERT INTO past (text, due_ms, rang_ms) VALUES (?, ?, ?)",
                row.text,
                row.due_ms,
                now,
            )
            if row.every_s is None:
                self.sql.exec("DELETE FROM reminders WHERE id = ?", row.id)
            else:  # the next one that is still to come: those that were missed came as this one
                every_ms = int(row.every_s * 1000)
                next_ms = row.due_ms + ((now - row.due_ms) // every_ms + 1) * every_ms
                self.sql.exec("UPDATE reminders SET due_ms = ? WHERE id = ?", next_ms, row.id)
        self.sql.exec("DELETE FROM past WHERE id <= (SELECT max(id) FROM past) - ?", MAX_PAST)
        await self.set_alarm()
        self.tell()

    async def set_alarm(self):
        """One object has one alarm: that of its earliest reminder."""
        earliest = self.sql.exec("SELECT min(due_ms) AS due_ms FROM reminders").one().due_ms
        if earliest is None:
            await self.ctx.storage.deleteAlarm()
        else:
            await self.ctx.storage.setAlarm(earliest)

    def tell(self):
        text = json.dumps(self.all())
        for ws in self.ctx.getWebSockets():
            ws.send(text)

    def all(self):
        """What is to come, the earliest first, and what has been, the latest first."""
        to_come = self.sql.exec("SELECT * FROM reminders ORDER BY due_ms, id").toArray()
        past = self.sql.exec("SELECT * FROM past ORDER BY id DESC").toArray()
        return {"to_come": [dict(row) for row in to_come], "past": [dict(row) for row in past]}


def now_ms():
    return int(time.time() * 1000)


def read(wanted, now):
    """Text, time and interval of what somebody wants to be reminded of."""
    if not isinstance(wanted, dict):
        raise BadReminderError("send a JSON object, see README.md")
    text = wanted.get("text")
    if not isinstance(text, str) or not text.strip():
        raise BadReminderError("text: what to remind of")
    if len(text.strip()) > MAX_TEXT_CHARS:
        raise BadReminderError(f"text: at most {MAX_TEXT_CHARS} characters")
    if ("in_s" in wanted) == ("at" in wanted):
        raise BadReminderError("either in_s, seconds from now, or at, a date with its zone")
    every_s = wanted.get("every_s")
    if every_s is not None:
        every_s = seconds(every_s, "every_s", LEAST_EVERY_S)
    if "in_s" in wanted:
        return text.strip(), now + int(seconds(wanted["in_s"], "in_s", 0) * 1000), every_s
    try:
        at = dt.datetime.fromisoformat(wanted["at"])
        zone, due_ms = at.tzinfo, int(at.timestamp() * 1000)
    except (TypeError, ValueError, OverflowError):
        zone, due_ms = None, 0
    if zone is None or not 0 < due_ms < now + MOST_S * 1000:
        raise BadReminderError("at: a date such as 2030-01-31T09:00:00+01:00")
    return text.strip(), due_ms, every_s


def seconds(value, field, least):
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < MOST_S:
        raise BadReminderError(f"{field}: a number of seconds, at least {least}")
    return float(value)


class Default(WorkerEntrypoint):
    async def fetch(self, request):
        parts = [unquote(part) for part in urlsplit(request.url).path.split("/")[1:]]
        if parts == [""] and request.method == "GET":
            return Response(PAGE, headers={"Content-Type": "text/html; charset=utf-8"})
        if parts[0] != "lists" or len(parts) not in (2, 3) or not parts[1]:
            return problem("there is /, /lists/NAME and /lists/NAME/ID", 404)
        if len(parts[1]) > MAX_NAME_CHARS:
            return problem(f"a list's name has at most {MAX_NAME_CHARS} characters", 400)
        reminders = self.env.LISTS.getByName(parts[1])
        if request.headers.get("Upgrade", "").lower() == "websocket" and len(parts) == 2:
            return await reminders.fetch(request)
        match request.method, len(parts):
            case "GET", 2:
                return Response.json(await reminders.all())
            case "POST", 2:
                try:
                    added = await reminders.add(json.loads(await request.text()))
                except ValueError:
                    return problem("that is no JSON", 400)
                except BadReminderError as error:
                    return problem(str(error), 400)
                return Response.json(added, status=201)
            case "DELETE", 3 if parts[2].isdecimal() and len(parts[2]) < 16:
                if await reminders.remove(int(parts[2])):
                    return Response(None, status=204)
                return problem("there is no such reminder", 404)
            case _:
                return problem("GET, POST /lists/NAME; DELETE /lists/NAME/ID", 405)


def problem(text, status):
    return Response.json({"error": text}, status=status)
