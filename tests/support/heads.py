"""Heads where nothing is wrong: they are kept only where a server is ill, and a test should not have to make it so."""

from __future__ import annotations

from support.database import Database


def always_keep(database: Database) -> None:
    """Let every claim and drain keep heads, and read from the bottom only when they are forgotten."""
    for function in ("_lock_lanes", "_told", "_read_held", "_keep_heads"):
        definition: str = database.value(
            "select pg_get_functiondef(p.oid) from pg_proc as p where p.proname = %s and p.pronamespace = 'perdure'::regnamespace",
            function,
        )
        edited = definition.replace(" > 100 then", " > -1 then").replace(
            "v_now + _keep_heads.pause * (", "v_now + interval '1 hour' + ("
        )
        assert edited != definition, function
        database.admin.execute(edited.encode())
