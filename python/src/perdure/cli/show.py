"""One run on one page: what it is, its steps over time, what it was told, how it ended."""

from __future__ import annotations

import json
import textwrap
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import click
from rich.console import Group
from rich.live import Live
from rich.text import Text

from perdure.cli import names, output, timeline
from perdure.cli.records import Entry, Run, Story, read_story
from perdure.cli.session import Target, session, target_options

_SHOWN_STEPS = 60
_STEPS = ("step ", "value ", "wait ", "run ", "sleep ", "timer ", "signal consumed", "cancel delivered", "try ")


@click.command()
@names.run_argument
@click.option(
    "--all", "is_whole", is_flag=True, help=f"Draw all steps, not the last {_SHOWN_STEPS}; show payloads whole."
)
@click.option("-f", "--follow", is_flag=True, help="Draw it anew until it has ended.")
@click.option("--json", "as_json", is_flag=True, help="Print all that is known as an object.")
@target_options
def show(target: Target, run: Sequence[str], is_whole: bool, follow: bool, as_json: bool) -> None:
    """Draw the timeline of RUN: steps as bars over time, tries, waits, what it was told, the outcome.

    RUN is an id, or the beginning of one; or WORKFLOW KEY.
    """
    console = output.console()
    with session(target, "observer") as db:
        run_id = names.find(db, run)
        story = read_story(db, run_id)
        if follow and story.run.finished_at is None:
            with Live(console=console, auto_refresh=False, transient=True) as live:
                while story.run.finished_at is None:
                    if output.is_terminal():
                        live.update(Group(*map(output.shown, _page(story, console.width, is_whole))), refresh=True)
                    time.sleep(0.5)
                    story = read_story(db, run_id)
    if as_json:
        output.print_json(asdict(story))
        return
    for line in _page(story, console.width, is_whole):
        console.print(output.shown(line), soft_wrap=True)


def _page(story: Story, width: int, is_whole: bool) -> Iterator[Text]:
    run = story.run
    yield from _head(run, width, is_whole)
    lines = timeline.lines_of(story)
    left_out = 0 if is_whole else max(len(lines) - _SHOWN_STEPS, 0)
    if lines:
        yield Text()
    if left_out:
        yield Text(f"{left_out} earlier steps are left out; --all draws them.", style="dim")
    lines = lines[left_out:]
    begin = run.created_at if not left_out else min(s.begin for line in lines for s in line.segments)
    yield from timeline.draw(lines, begin, run.seen_at, width)
    for title, rows in (("Failed tries", _tries(story)), ("Told", _told(story))):
        found = list(rows)
        if found:
            yield Text()
            yield Text(title, style="bold")
            for row in found:
                yield _fit(row, width, is_whole)
    yield Text()
    yield from _outcome(run, width, is_whole)
    if run.finished_at is None:
        for line in story.explanation:
            for part in textwrap.wrap(line, width - 2, break_long_words=False, break_on_hyphens=False):
                yield Text(f"  {part}")


def _head(run: Run, width: int, is_whole: bool) -> Iterator[Text]:
    title = Text(f"{run.workflow}  ", style="bold")
    title.append(str(run.run_id), style="")
    title.append(f"  {run.state}", style=output.style(run.state))
    yield title
    facts = [
        f"started {output.clock(run.created_at)} by {run.created_by}",
        f"queue {run.queue}",
        f"key {run.key}" if run.key else "",
        *(f"{name}={value}" for name, value in _pairs(run.tags)),
        f"to begin at {output.clock(run.start_at)}" if run.start_at else "",
        f"deadline {output.clock(run.deadline)}" if run.deadline else "",
        f"held by {run.worker}" if run.worker else "",
        f"recovered {run.recoveries} times without progress" if run.recoveries else "",
    ]
    for line in _filled([fact for fact in facts if fact], width):
        yield Text(line, style="dim")
    yield _fit(Text("input ", style="dim").append(_json(run.input), style=""), width, is_whole)


def _tries(story: Story) -> Iterator[Text]:
    for entry in story.history:
        if entry.what == "try failed":
            detail = entry.detail
            said = ": ".join(str(detail[word]) for word in ("type", "message") if detail.get(word))
            yield Text(f"  {output.clock(entry.at)}  {entry.key}, try {detail.get('attempt')}: ").append(
                said, style="red"
            )


def _told(story: Story) -> Iterator[Text]:
    sent = {signal.id: signal for signal in story.signals}
    for entry in story.history:
        if entry.what == "signal sent" and (signal := sent.get(entry.detail["id"])) is not None:
            text = Text(f"  {output.clock(signal.sent_at)}  signal {signal.name} by {signal.sent_by}")
            text.append(f", consumed by {signal.consumed_by}" if signal.consumed_by else ", not consumed", style="dim")
            yield text.append(f"  {_json(signal.payload)}")
        elif entry.what != "try failed" and not entry.what.startswith(_STEPS):
            yield Text(f"  {output.clock(entry.at)}  {entry.what}{_details(entry)}")


def _details(entry: Entry) -> str:
    detail = entry.detail
    said = f" by {detail['by']}" if "by" in detail else ""
    said += f": {detail['answer']}" if "answer" in detail else ""
    return said + (f" ({detail['reason']})" if detail.get("reason") else "")


def _outcome(run: Run, width: int, is_whole: bool) -> Iterator[Text]:
    took = output.duration(run.seen_at - run.created_at)
    text = Text(run.state, style=f"bold {output.style(run.state)}".strip())
    if run.finished_at is not None:
        text.append(f" after {took}", style="")
    else:
        text.append(f", {took} after its start", style="")
    if run.pause_reason:
        text.append(f": {run.pause_reason}")
    yield text
    if run.error is not None:
        said = ": ".join(str(run.error[word]) for word in ("type", "message") if run.error.get(word))
        step = f" (step {run.error['step']})" if run.error.get("step") else ""
        for line in f"{said}{step}".split("\n") if is_whole else (f"{said}{step}",):
            yield _fit(Text(f"  {line}", style="red"), width, is_whole)
    elif run.finished_at is not None:
        yield _fit(Text(f"  {_json(run.result)}"), width, is_whole)


def _fit(text: Text, width: int, is_whole: bool) -> Text:
    """Cut to one line, unless all was asked for."""
    if not is_whole:
        text.plain = " ".join(text.plain.splitlines())
        text.truncate(width, overflow="ellipsis")
    return text


def _filled(facts: list[str], width: int) -> Iterator[str]:
    """Facts side by side, as many to a line as it holds."""
    line = ""
    for fact in facts:
        if line and len(line) + 2 + len(fact) > width:
            yield line
            line = ""
        line = f"{line}, {fact}" if line else fact
    if line:
        yield line


def _pairs(tags: Any) -> list[tuple[str, Any]]:
    return list(tags.items()) if isinstance(tags, dict) else [("tags", _json(tags))]


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=output.plain)
