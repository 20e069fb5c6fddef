update {schema}.sagas
set status = 'stuck', reason = $3, call_due = null, claimed_by = null, look_at = null, asked = null,
    asked_why = null, changed_at = clock_timestamp()
where saga = $1 and key = $2 and status not in ('completed', 'compensated', 'aborted')
