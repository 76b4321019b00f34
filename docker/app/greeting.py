"""A workflow to try a worker with: greets somebody, and waits for the answer.

select perdure.start('greet', '{"name": "Ada"}', key => 'ada');
select perdure.signal_key('greet', 'ada', 'answer', '"Hello back"');
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import perdure

app = perdure.App()  # the database: PERDURE_DSN, or what psql would take

ANSWER = perdure.Signal("answer", str)


@dataclass
class Person:
    name: str


@perdure.step()
async def find_words(person: Person) -> str:
    """Find the right words."""
    return f"Hello {person.name}"


@app.workflow()
async def greet(run: perdure.AsyncRun, person: Person) -> list[str]:
    """Say hello, and keep what comes back within a week."""
    words = await run.step(find_words, person)
    answer = await run.wait_signal(ANSWER, timeout=timedelta(days=7), default="")
    return [words, answer]
