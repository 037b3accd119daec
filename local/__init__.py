"""The `limpet` command, and the in-process cluster that is also the public test kit.

| to learn | read |
|---|---|
| what the command can be asked | `cli`, `options` |
| how processes are started, watched and stopped | `supervisor`, `child`, `processes` |
| when a process that died is started again | `restarts` |
| what one supervisor owns on the disk | `rundir` |
| what is refused before anything starts | `preflight` |
| how an app is judged before it runs | `check`, `probe`, `inspection`, `findings` |
| how a running cluster is asked for its health | `status` |
"""

from __future__ import annotations
