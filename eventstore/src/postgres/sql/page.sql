-- Events of the whole store above $1 and up to $2, at most $3. The names of their streams are looked up
-- afterwards, once for each stream.
select e.position, e.stream_id, e.version, e.event_id, e.type, e.schema_version,
    e.recorded_at, e.occurred_at, e.payload, e.metadata
from {source} e
where e.position > $1 and e.position <= $2 {filters}
order by e.position {direction}
limit $3
