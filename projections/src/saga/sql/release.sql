update {schema}.sagas set claimed_by = null, call_due = clock_timestamp()
where saga = $1 and claimed_by = $2
