-- Events of the streams ($1, $2), of each those after version $3 and up to version $4 and position
-- $5, at most $6. The last column is the index of the stream, from 1. A deleted stream has none. An
-- archived one that is not to be read is told by a row without an event: {refused} is its state.
-- {source} is where the events are.
select e.position, wanted.category, wanted.key, e.version, e.event_id, e.type, e.schema_version,
    e.recorded_at, e.occurred_at, e.payload, e.metadata, wanted.index
from unnest($1::text[], $2::text[]) with ordinality wanted(category, key, index)
join {schema}.streams s
    on s.category = wanted.category and s.key = wanted.key and s.state <> 1
left join {source} e
    on e.stream_id = s.id and e.version > $3 and e.version <= $4 and e.position <= $5
where e.position is not null or s.state = {refused}
order by wanted.index, e.version
limit $6
