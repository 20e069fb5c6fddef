insert into {schema}.sagas as s
    (saga, key, status, step, reason, attempts, call_due, claimed_by, look_at, asked, asked_why)
select $1, n.*
from unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::integer[], $7::timestamptz[],
    $8::uuid[], $9::timestamptz[], $10::text[], $11::text[]) n
on conflict (saga, key) do update
set status = excluded.status, step = excluded.step, reason = excluded.reason,
    attempts = excluded.attempts, call_due = excluded.call_due, claimed_by = excluded.claimed_by,
    look_at = excluded.look_at, asked = excluded.asked, asked_why = excluded.asked_why,
    changed_at = clock_timestamp()
