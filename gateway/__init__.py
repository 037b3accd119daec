"""The edge: owns the clients' sockets, speaks HTTP and WebSocket, and runs no app code."""

from __future__ import annotations
