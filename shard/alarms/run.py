"""One run of an alarm: an event of its object, from its release to the end of its handler."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol

import structlog

from common.errors import ObjectReset
from shard.alarms.alarm import Alarm
from shard.alarms.retries import is_last
from shard.slot import Pending
from workers.alarm_info import AlarmInvocationInfo
from workers.handlers import bound_handler

if TYPE_CHECKING:
    from shard.activation import Activation
    from shard.storage.object_storage import ObjectStorage

log = structlog.get_logger(__name__)


class RunHost(Protocol):
    """What a run needs of the ringer."""

    timeout_s: float
    stopped: bool
    """The shard ends: what is cut now runs again in its next home."""

    def storage_of(self, activation: Activation) -> ObjectStorage:
        """The storage of an activation; made if need be."""

    def may_run(self, alarm: Alarm) -> bool:
        """It is set, and its partition is ours."""

    def is_due(self, due_ms: int) -> bool:
        """The wall clock has come to that time."""

    def began(self, due_ms: int, retries: int) -> None:
        """A handler begins."""

    def not_due(self, alarm: Alarm, due_ms: int | None) -> None:
        """The object's file says another time, or none; the run is over."""

    def ended(self, alarm: Alarm, error: BaseException | None, *, counted: bool) -> float:
        """The run is over; seconds until it is tried again, should it still be set then."""


class AlarmRun(Pending):
    """See the module.

    The alarm is removed in the handler's last step, in the same commit as what that step has
    written. Should the commit fail, the alarm is still set, and rings again.
    """

    __slots__ = ("_activation", "_alarm", "_host", "_last", "_loop", "_over", "_timer")

    def __init__(self, alarm: Alarm, host: RunHost, loop: asyncio.AbstractEventLoop) -> None:
        self.size = 0  # never refused: at most so many run at once
        self._alarm = alarm
        self._host = host
        self._loop = loop
        self._last = is_last(alarm.retries)
        self._activation: Activation | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._over = False

    def start(self, activation: Activation) -> None:
        """Its object is in memory and free."""
        alarm = self._alarm
        self._activation = activation
        if not self._host.may_run(alarm):
            self._end(None, counted=False)
            return
        try:
            storage = self._host.storage_of(activation)
            due_ms = storage.due_alarm()
        except Exception as error:
            self._end(error, counted=False)
            return
        if due_ms is None or not self._host.is_due(due_ms):
            self._over = True
            self._host.not_due(alarm, due_ms)
            return
        storage.begin_alarm(last=self._last)
        self._host.began(due_ms, alarm.retries)
        handler = bound_handler(activation.instance, "alarm", 1) or self._no_handler
        activation.invoke(handler, (AlarmInvocationInfo(due_ms, alarm.retries),), self._done)
        if not self._over:
            self._timer = self._loop.call_later(self._host.timeout_s, self._took_too_long)

    def fail(self, error: BaseException) -> None:
        """It was not begun: the object cannot be constructed, was reset, or leaves the shard."""
        self._end(error, counted=False)

    def _done(self, value: Any, error: BaseException | None) -> None:
        activation = self._activation
        assert activation is not None
        if activation.dead:
            # Whether that is the end of the alarm, too, its storage has decided.
            self._end(activation.death, counted=not activation.blameless)
            return
        if error is not None:
            activation.failed(error, "alarm")
        try:
            self._host.storage_of(activation).end_alarm(remove=error is None or self._last)
        except Exception as failure:
            self._end(failure, counted=False)
        else:
            self._end(error, counted=error is not None)

    def _end(self, error: BaseException | None, *, counted: bool) -> None:
        if self._over:
            return
        self._over = True
        if self._timer is not None:
            self._timer.cancel()
        alarm, activation = self._alarm, self._activation
        retries = alarm.retries
        again_s = self._host.ended(alarm, error, counted=counted)
        if error is None:
            return
        about = {
            "object": str(activation.slot) if activation is not None else alarm.name,
            "retries": retries,
            "error": str(error) or repr(error),
        }
        if counted and self._last:
            log.error("alarm.given_up", **about)
        elif not self._host.stopped and self._host.may_run(alarm):
            log.warning("alarm.failed", **about, counted=counted, again_in_s=round(again_s, 2))

    def _took_too_long(self) -> None:
        activation = self._activation
        if activation is not None and not activation.dead and not self._over:
            text = f"alarm() took longer than {self._host.timeout_s:g} s (ALARM_TIMEOUT_S)"
            activation.slot.reset(ObjectReset(text))

    def _no_handler(self, info: AlarmInvocationInfo) -> None:
        assert self._activation is not None
        log.error(
            "alarm.no_handler",
            object=str(self._activation.slot),
            remedy="its class has no alarm() any more: the alarm is dropped",
        )
