"""Ways to break the engine, each at a place where a promise hangs on one line: the simulation must find them all."""

from __future__ import annotations

Change = tuple[str, str]

# name -> function -> what is changed in it
BREAKS: dict[str, dict[str, list[Change]]] = {
    "a_drain_that_looks_before_it_deletes": {
        "_drain": [
            ("  delete from perdure.wake as w where w.run_id = any(v_held);  -- before the look, never after it\n", ""),
            (
                "  perform perdure._drop_late_acts(v_told.run_ids);\n",
                "  delete from perdure.wake as w where w.run_id = any(v_held);\n"
                "  perform perdure._drop_late_acts(v_told.run_ids);\n",
            ),
        ]
    },
    "a_suspension_that_does_not_look": {
        "suspend_runs": [
            (
                "perdure._look(suspend_runs.suspensions, v_lock.held, suspend_runs.keep, v_now)",
                "'{}'",
            )
        ]
    },
    "a_worker_without_a_fence": {
        "_lock_runs": [("  perform perdure._fence(_lock_runs.worker_id);\n", "")],
        "claim_runs": [("  perform perdure._fence(claim_runs.worker_id);\n", "")],
    },
    "a_claim_whose_token_nobody_compares": {
        "_lock_runs": [("        and d.claim = c.claim\n", "")],
    },
    "a_message_whose_conflict_is_not_looked_at": {
        "signal": [("  if not found then\n    return 'duplicate';", "  if false then\n    return 'duplicate';")],
    },
    "a_time_out_that_beats_the_message": {
        "_answer_waits": [
            (
                "where w.kind = 'signal' and s.run_id = a.run_id",
                "where w.kind = 'signal' and coalesce(w.until > _answer_waits.now, true) and s.run_id = a.run_id",
            )
        ]
    },
    "a_look_that_answers_two_waits": {
        "_answer_waits": [("select distinct on (a.run_id)\n", "select distinct on (a.run_id, w.position)\n")],
    },
    "a_soft_stop_that_is_charged": {
        "stop_worker": [("set worker_id = null,", "set recoveries = d.recoveries + 1, worker_id = null,")],
    },
    "a_transaction_step_that_locks_too_little": {
        "save_transaction_step": [("  for share;\n", "  for key share;\n")],
    },
    "an_end_that_does_not_look_at_acts": {
        "_end_claimed": [("  perform perdure._apply_acts(v_lock.held);\n", "")],
    },
    "a_restart_without_grace": {
        "_is_dead": [("_is_dead.now >= _is_dead.calm_since + least(w.lease, interval '5 seconds')", "true")],
    },
    "a_release_that_ends_a_pause": {
        "release_runs": [("is_paused = d.is_paused or a.is_paused", "is_paused = a.is_paused")],
    },
    "a_resume_that_leaves_the_cancelled_asleep": {
        "_apply_act": [
            (
                "when d.cancel is null then greatest(d.ready_at, _apply_act.now)",
                "when true then greatest(d.ready_at, _apply_act.now)",
            )
        ],
    },
    "a_pause_that_hides_an_answer": {
        "_look": [(" and not v_answered ? d.run_id::text", "")],
    },
    "a_claim_that_is_given_twice": {
        "_lock_lanes": [("      for update skip locked\n", "")],
    },
}
