with mine as (
    select key from {schema}.sagas where saga = $1 and claimed_by = $2 and key = any ($3)
    for update skip locked)
update {schema}.sagas s set call_due = clock_timestamp() + $4 * interval '1 millisecond'
from mine where s.saga = $1 and s.key = mine.key
