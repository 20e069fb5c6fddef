insert into {schema}.sagas as s
    (saga, key, status, step, reason, attempts, call_due, claimed_by, look_at)
select $1, n.key, n.status, n.step, n.reason, n.attempts, n.call_due, n.claimed_by, n.look_at
from unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::integer[], $7::timestamptz[],
    $8::uuid[], $9::timestamptz[])
    n (key, status, step, reason, attempts, call_due, claimed_by, look_at)
on conflict (saga, key) do update
set status = excluded.status, step = excluded.step, reason = excluded.reason,
    attempts = excluded.attempts, call_due = excluded.call_due, claimed_by = excluded.claimed_by,
    look_at = excluded.look_at, asked = null, asked_why = null, changed_at = clock_timestamp()
