-- Idempotency keys after $1, at most $2, and how many of the events that each led to are there.
select k.key, k.position, k.events::bigint,
    (select count(*) from {schema}.events e
     where e.position > k.position - k.events and e.position <= k.position)
    + (select count(*) from {schema}.archived_events e
       where e.position > k.position - k.events and e.position <= k.position)
from (select key, position, events from {schema}.idempotency where key > $1 order by key limit $2) k
order by k.key
