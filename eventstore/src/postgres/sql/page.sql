-- Events of the whole store above $1 and up to $2, at most $3.
-- `offset 0` keeps the planner from joining all streams to a page of events.
select e.position, s.category, s.key, e.version, e.event_id, e.type, e.schema_version,
    e.recorded_at, e.occurred_at, e.payload, e.metadata
from {source} e
cross join lateral (
    select s.category, s.key from {schema}.streams s where s.id = e.stream_id offset 0
) s
where e.position > $1 and e.position <= $2 {filters}
order by e.position {direction}
limit $3
