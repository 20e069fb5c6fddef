-- Events of the stream ($4, $5) after version $6 and up to version $7, above position $1 and up to $2, at
-- most $3. The stream is found first, so that its index gives the order and a page costs a page. A
-- deleted stream has none. An archived one that is not to be read is told by a row without an event:
-- {refused} is its state. {source} is where the events are.
(
    select e.position, e.stream_id, e.version, e.event_id, e.type, e.schema_version,
        e.recorded_at, e.occurred_at, e.payload, e.metadata
    from {source} e
    where e.stream_id = (
            select s.id from {schema}.streams s
            where s.category = $4 and s.key = $5 and s.state not in (1, {refused})
        )
      and e.version > $6 and e.version <= $7 and e.position > $1 and e.position <= $2 {filters}
    order by e.version {direction}
    limit $3
)
union all
select null, null, null, null, null, null, null, null, null, null
from {schema}.streams s
where s.category = $4 and s.key = $5 and s.state = {refused}
order by 3 {direction}
