"""``python -m shard``: one shard process, configured by the environment."""

from __future__ import annotations

import sys

from shard.server import main

sys.exit(main())
