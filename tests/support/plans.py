"""Plans as the server tells them: how a statement was answered, and from how many pages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg

Plan = dict[str, Any]


def plan_of(conn: psycopg.Connection[Any], query: str, *parameters: Any) -> Plan:
    """Execute a statement and return its plan; of what it calls the plan has the pages alone."""
    row = conn.execute(f"explain (analyze, buffers, format json) {query}".encode(), parameters or None).fetchone()
    assert row is not None
    plan: Plan = row[0][0]["Plan"]
    return plan


def nodes(plan: Plan) -> Iterator[Plan]:
    """Every node of a plan, the root first."""
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


def pages(plan: Plan) -> int:
    """How many pages were touched."""
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


def fewest_pages(conn: psycopg.Connection[Any], query: str, *parameters: Any) -> int:
    """How many pages a statement touches, the least of five times, as the first ones also read catalogs."""
    return min(pages(plan_of(conn, query, *parameters)) for _ in range(5))
