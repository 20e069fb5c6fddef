-- Events of the streams ($1, $2), of each those after version $3 and up to version $4 and position
-- $5, at most $6. The last column is the index of the stream, from 1.
select e.position, wanted.category, wanted.key, e.version, e.event_id, e.type, e.schema_version,
    e.recorded_at, e.occurred_at, e.payload, e.metadata, wanted.index
from unnest($1::text[], $2::text[]) with ordinality wanted(category, key, index)
join {schema}.streams s on s.category = wanted.category and s.key = wanted.key
join {schema}.events e on e.stream_id = s.id
where e.version > $3 and e.version <= $4 and e.position <= $5
order by wanted.index, e.version
limit $6
