"""Alarms: what makes ``alarm()`` of an object run, once its time has come.

::

    session ─ commit ─▶ AlarmKeeper ─▶ index: DATA_DIR/<partition>/alarms.index
                            │  ▲
                            ▼  │ what the object's file says
                        Schedule ◀── due? ── Ringer (one timer) ── AlarmRun ──▶ Slot.deliver

The truth about an alarm is in its object's own file, in the same commit as the object's data. The
index, one for each partition, says which files to look at, and is never later than they are; the
schedule is what a running shard makes of it. An alarm leaves them only when its object's file has
no alarm any more. So whatever dies at whatever moment, an alarm rings again or is done with.
"""
