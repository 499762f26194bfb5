"""Redis clients as messages name them."""

from __future__ import annotations

from typing import Any


def address(client: Any) -> str:
    """Where a redis-py client connects to; never a password."""
    known = getattr(getattr(client, "connection_pool", None), "connection_kwargs", {})
    return str(known.get("path") or f"{known.get('host', 'its cluster')}:{known.get('port', '')}".rstrip(":"))
