"""A made-up shop's log, for trying the guide without data of one's own: events.parquet and items.txt.

Customers go from shelf to shelf and mostly take what comes next on one, so there is something to learn. Run: python make_log.py
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

CUSTOMERS, SHELVES, ITEMS_PER_SHELF, EVENTS = 200, 12, 25, 6_000
END = datetime(2025, 6, 1, tzinfo=UTC)
DAYS = 60
EVENT_NAMES, EVENT_SHARES = ("viewed", "added_to_cart", "bought"), (0.7, 0.2, 0.1)
PAGES = ("home", "search", "product", "email")


def make(seed: int = 0) -> tuple[pa.Table, list[str]]:
    """The log, by time, and all string ids of items."""
    rng = np.random.default_rng(seed)
    skus = [f"SKU-{shelf:02d}-{place:03d}" for shelf in range(SHELVES) for place in range(ITEMS_PER_SHELF)]
    at_us = np.sort(rng.integers(0, DAYS * 86_400_000_000, EVENTS)) + int(END.timestamp() * 1e6) - DAYS * 86_400_000_000
    customers = rng.integers(0, CUSTOMERS, EVENTS)
    where: dict[int, tuple[int, int]] = {}  # customer -> shelf and place
    items = []
    for customer in customers.tolist():
        shelf, place = where.get(customer, (customer % SHELVES, 0))
        if rng.random() < 0.1:
            shelf, place = int(rng.integers(SHELVES)), int(rng.integers(ITEMS_PER_SHELF))
        where[customer] = shelf, (place + 1) % ITEMS_PER_SHELF
        items.append(skus[shelf * ITEMS_PER_SHELF + place])
    table = pa.table(
        {
            "at": pa.array(at_us, pa.timestamp("us", tz="UTC")),
            "customer": [f"c-{customer}" for customer in customers.tolist()],
            "sku": items,
            "event": rng.choice(EVENT_NAMES, EVENTS, p=EVENT_SHARES).tolist(),
            "page": rng.choice(PAGES, EVENTS).tolist(),
        }
    )
    return table, skus


if __name__ == "__main__":
    table, skus = make()
    pq.write_table(table, "events.parquet")
    Path("items.txt").write_text("\n".join(skus) + "\n")
    print(f"events.parquet: {len(table):,} events of {CUSTOMERS} customers; items.txt: {len(skus)} items")
