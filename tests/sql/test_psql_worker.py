"""psql alone drives a whole run: every call can be typed, with literals."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from support.database import Database

SCRIPT = r"""
\set ON_ERROR_STOP on
set default_transaction_isolation = 'read committed';
select perdure.put_workflow('order', timeout => '1 hour');
select perdure.start('order', '{"amount": 7}', key => 'order-42') as run_id \gset

select perdure.register_worker('{default}', '{order}', name => 'a person') as worker_id \gset
select claim, input from perdure.claim_runs(:'worker_id') \gset
select answer from perdure.save_steps(:'worker_id', json_build_array(json_build_object(
  'run_id', :'run_id', 'claim', :'claim', 'key', 'reserve', 'kind', 'step', 'ordinal', 1, 'result', true))::jsonb);
select attempt, answer from perdure.fail_steps(:'worker_id', json_build_array(json_build_object(
  'run_id', :'run_id', 'claim', :'claim', 'key', 'charge', 'kind', 'step', 'ordinal', 2, 'attempt', 1,
  'error', json_build_object('type', 'Timeout', 'message', 'bank is slow'), 'policy', '{}'::json))::jsonb);
select answer from perdure.suspend_runs(:'worker_id', json_build_array(json_build_object(
  'run_id', :'run_id', 'claim', :'claim', 'saves', '[]'::json,
  'waits', '[{"key": "paid", "kind": "signal", "name": "paid", "until": null}]'::json))::jsonb);
select state from perdure.runs where run_id = :'run_id';
select count(*) from perdure.claim_runs(:'worker_id');

select perdure.signal_key('order', 'order-42', 'paid', '{"by": "card"}', id => 'webhook-1');
select perdure.signal_key('order', 'order-42', 'paid', '{"by": "card"}', id => 'webhook-1');
select claim, jsonb_path_query_array(steps, '$[*].key') from perdure.claim_runs(:'worker_id') \gset
select jsonb_path_query(perdure.read_steps(:'run_id'), '$[*] ? (@.key == "paid").result');

begin;
create temporary table ledger as select 7 as amount;
select perdure.save_transaction_step(:'worker_id', jsonb_build_object(
  'run_id', :'run_id', 'claim', :'claim', 'key', 'ship', 'kind', 'transaction', 'ordinal', 3, 'result', 'A-1')) ->> 'key';
commit;
select perdure.beat(:'worker_id', runs_held => 1) -> 'reconcile';
select answer from perdure.complete_runs(:'worker_id', json_build_array(json_build_object(
  'run_id', :'run_id', 'claim', :'claim', 'result', '{"shipped": "A-1"}'::json))::jsonb);
select perdure.result(:'run_id');
select perdure.stop_worker(:'worker_id');
select string_agg(key, ' ' order by ordinal) from perdure.steps where run_id = :'run_id' and ordinal > 0;
select count(*) > 5 from perdure.history where run_id = :'run_id';
select count(*) from perdure.violations;
"""

ANSWERS = """
saved
1|retry
suspended
waiting
0
accepted
duplicate
{"by": "card"}
ship
false
done
{"shipped": "A-1"}
0
reserve paid ship
t
0
"""


def test_psql_alone_drives_a_whole_run(database: Database) -> None:
    local = database.server.local
    psql = local.binaries.bin / "psql" if local is not None else shutil.which("psql")
    if psql is None:
        pytest.skip("there is no psql on this machine")
    done = subprocess.run(
        [psql, "-X", "-q", "-At", "-d", database.dsn()], input=SCRIPT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert [line for line in done.stdout.splitlines() if line] == ANSWERS.split("\n")[1:-1]
