"""What objects keep on disk: a SQLite file each, and that nothing is told before it lasts.

::

    workers.storage ──▶ ObjectStorage ──▶ Database ──▶ <id>.sqlite, <id>.sqlite-wal
    (ctx.storage)       StorageSession    one open file
                        one activation
                           │ commit
                           ├──────────▶ CommitLog ──▶ Syncer: fdatasync, beside the loop
                           │ durable, or not
                           └──────────▶ OutputGate: frames, responses and calls leave, or never do
"""
