"""``python -m gateway``: one gateway process, configured by its environment."""

from __future__ import annotations

import sys

from common.process import run_role
from gateway.server import Gateway

if __name__ == "__main__":
    sys.exit(run_role("gateway", Gateway))
