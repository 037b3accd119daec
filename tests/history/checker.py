"""What must be true of every history, whatever happened to the processes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable

from common.close_reasons import CloseReason
from tests.history.members import Connection


def violations(
    connections: Iterable[Connection],
    allowed: Collection[CloseReason],
    listed: dict[str, list[str]],
) -> list[str]:
    """Everything that is wrong, in words.

    Args:
        connections: all there were.
        allowed: why the chaos may have closed connections; see :mod:`common.close_reasons`.
        listed: whom the object of each room lists at the end.
    """
    wrong: list[str] = []
    everyone = list(connections)
    for each in everyone:
        wrong += [f"{each.room}/{each.name} was told of a gap: {fault}" for fault in each.faults]
        given = each.close_code, each.close_text
        if not each.is_open and given not in {(reason.code, reason.text) for reason in allowed}:
            wrong.append(f"{each.room}/{each.name} was closed with {given}")
        wrong += _order(each)
    for each in filter(lambda one: one.is_open, everyone):
        for other in everyone:
            if other.room == each.room and other.is_open and _knew_from_the_start(each, other):
                heard = len(each.heard.get(other.name, ()))
                if heard != other.sent:
                    wrong.append(
                        f"{each.room}: {each.name} heard {heard} of the {other.sent} messages of "
                        f"{other.name}; neither was closed"
                    )
    for room, members in listed.items():
        present = Counter(each.name for each in everyone if each.room == room and each.is_open)
        if Counter(members) != present:
            wrong.append(f"{room} lists {sorted(members)}, present are {sorted(present)}")
    return wrong


def _order(connection: Connection) -> list[str]:
    wrong: list[str] = []
    for name, numbers in connection.heard.items():
        first = 1 if name == connection.name else numbers[0]
        if numbers != list(range(first, first + len(numbers))):
            broken = next(n for i, n in enumerate(numbers) if n != first + i)
            wrong.append(
                f"{connection.room}: {connection.name} heard {name}'s messages lost, repeated or "
                f"out of order at {broken}: {numbers[:3]} … {numbers[-3:]}"
            )
    return wrong


def _knew_from_the_start(one: Connection, other: Connection) -> bool:
    return other.first_sent_at is not None and one.joined_at < other.first_sent_at
