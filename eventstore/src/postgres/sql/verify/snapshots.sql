-- Snapshots after that of the stream $1, the name $2 and the version $3, at most $4, and whether there is the
-- event that each is of.
select n.stream_id, n.name, n.version, n.position, n.fingerprint, s.category, s.key,
    s.id is not null and (
        exists (select from {schema}.events e
            where e.stream_id = n.stream_id and e.version = n.version and e.position = n.position)
        or exists (select from {schema}.archived_events e
            where e.stream_id = n.stream_id and e.version = n.version and e.position = n.position)
    )
from (
    select stream_id, name, version, position, fingerprint from {schema}.snapshots
    where (stream_id, name, version) > ($1, $2, $3)
    order by stream_id, name, version
    limit $4
) n
left join {schema}.streams s on s.id = n.stream_id
order by n.stream_id, n.name, n.version
