-- Events of the stream of number $1 after version $2 and up to $3, wherever they are, at most $4.
select e.version, e.position, e.type, e.schema_version, e.payload
from (
    select * from {schema}.events where stream_id = $1 and version > $2 and version <= $3
    union all
    select * from {schema}.archived_events where stream_id = $1 and version > $2 and version <= $3
) e
order by e.version
limit $4
