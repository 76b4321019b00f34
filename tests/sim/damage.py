"""Bad runs: a hand in the tables, a bad disk or half a restore left what no function of the engine would have written.

The engine must set such a run aside and do its work on all others; an operator then mends it and resumes it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from sim.rules import Snapshot, waits_of

if TYPE_CHECKING:
    from sim.world import World

# Classes of what the data of a run can cause.
BAD_DATA = ("22", "23")
_TOO_LONG = "294000 years"

_FREE = "exists (select from perdure.dispatch as f where f.run_id = $1 for update skip locked)"
# Each where nobody is at work on the run, so that it is there from one moment to the next.
_STRIKES = {
    "waits": f"update perdure.dispatch set waits = '[1]' where run_id = $1 and waits is not null and {_FREE}",
    "outcome": "insert into perdure.outcome (run_id, status, error, finished_at) "
    f"select $1, 'terminated', '{{}}', perdure._now() where {_FREE}",
    "act": f"update perdure.act set grace = '{_TOO_LONG}' where run_id = $1 and applied_at is null and act = 'cancel' "
    f"and {_FREE}",
}
_MENDS = {
    "waits": f"update perdure.dispatch set waits = $2 where run_id = $1 and waits = '[1]' and {_FREE}",
    "outcome": f"delete from perdure.outcome where run_id = $1 and {_FREE}",
    "act": f"update perdure.act set grace = '1 minute' where run_id = $1 and applied_at is null and act = 'cancel' "
    f"and {_FREE}",
}


class Damage:
    """What is wrong with which runs just now."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.runs: dict[str, str] = {}
        self._waits: dict[str, str] = {}

    def look(self, seen: Snapshot) -> None:
        """See which runs are bad."""
        self.runs = {
            row["run_id"]: "act"
            for row in seen["act"].values()
            if row["applied_at"] is None and (row["grace"] or "").startswith(_TOO_LONG)
        }
        for run_id, row in seen["dispatch"].items():
            if row["waits"] and not waits_of(row):
                self.runs[run_id] = "waits"
            if run_id in seen["outcome"]:
                self.runs[run_id] = "outcome"

    def strike(self) -> None:
        """Spoil a run."""
        world, seen = self.world, self.world.seen
        kinds = {
            "waits": [run_id for run_id, row in seen["dispatch"].items() if row["waits"]],
            "outcome": list(seen["dispatch"]),
            "act": [r["run_id"] for r in seen["act"].values() if r["applied_at"] is None and r["act"] == "cancel"],
        }
        able = [name for name, runs in sorted(kinds.items()) if runs]
        if not able:
            return
        kind = world.chance.choice([*able, able[-1]])  # of those who wait there are few
        sound = sorted(set(kinds[kind]) & seen["dispatch"].keys() - self.runs.keys())
        if not sound:
            return
        run_id = world.chance.choice(sound)
        self._waits[run_id] = json.dumps(seen["dispatch"][run_id]["waits"])
        self._execute(f"spoil the {kind} of {run_id}", _STRIKES[kind], [run_id])

    def mend(self) -> None:
        """Mend what can be mended now, and have somebody look at it."""
        for run_id, kind in sorted(self.runs.items()):
            self._execute(
                f"mend the {kind} of {run_id}",
                _MENDS[kind],
                [run_id, self._waits[run_id]] if kind == "waits" else [run_id],
            )
            self.world.arena.onlooker.execute("insert into perdure.wake values ($1, perdure._now())", [run_id])
        self.world.refresh()

    def _execute(self, what: str, statement: str, parameters: list[str]) -> None:
        world = self.world
        world.set_clock()
        world.arena.onlooker.execute(statement, parameters)
        before = dict(self.runs)
        world.refresh()
        if self.runs != before:
            world.say(f"*** {what}")
            world.counted[" ".join(what.split()[:3])] += 1
