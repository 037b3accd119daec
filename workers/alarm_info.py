"""What ``alarm(info)`` is told."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AlarmInvocationInfo:
    """Which alarm rings, and whether it has been tried before.

    Attributes:
        scheduledTime: when it was to ring, in milliseconds since 1970.
        retryCount: how many runs of it have failed before; those that were not the app's fault do
            not count.
        isRetry: whether that is more than none.

    Source: https://developers.cloudflare.com/durable-objects/api/alarms/#alarm
    """

    scheduledTime: int
    retryCount: int = 0

    @property
    def isRetry(self) -> bool:
        """Whether it has failed before."""
        return self.retryCount > 0

    @property
    def scheduled_time(self) -> int:
        """``scheduledTime``."""
        return self.scheduledTime

    @property
    def retry_count(self) -> int:
        """``retryCount``."""
        return self.retryCount

    @property
    def is_retry(self) -> bool:
        """``isRetry``."""
        return self.isRetry
