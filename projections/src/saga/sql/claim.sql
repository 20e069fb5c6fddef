with due as (
    select key from {schema}.sagas
    where saga = $1 and call_due <= clock_timestamp()
      and not exists (select from {schema}.projections where name = $5 and paused is not null)
    order by call_due limit $2 for update skip locked)
update {schema}.sagas s
set claimed_by = $3, attempts = attempts + 1,
    call_due = clock_timestamp() + $4 * interval '1 millisecond'
from due where s.saga = $1 and s.key = due.key
returning s.key, s.attempts
