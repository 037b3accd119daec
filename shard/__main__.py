"""``python -m shard``: one shard process, configured by the environment."""

import sys

from shard.server import main

sys.exit(main())
