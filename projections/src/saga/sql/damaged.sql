insert into {schema}.sagas as s (saga, key, status, reason) values ($1, $2, 'stuck', $3)
on conflict (saga, key) do update
set status = 'stuck', reason = excluded.reason, call_due = null, claimed_by = null, look_at = null,
    asked = null, asked_why = null, changed_at = clock_timestamp()
where s.status not in ('completed', 'compensated', 'aborted')
