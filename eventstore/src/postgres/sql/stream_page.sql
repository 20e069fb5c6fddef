-- Events of the stream ($4, $5) after version $6 and up to version $7, above position $1 and up to $2, at
-- most $3. The stream is found first, so that its index gives the order and a page costs a page.
select e.position, $4::text, $5::text, e.version, e.event_id, e.type, e.schema_version,
    e.recorded_at, e.occurred_at, e.payload, e.metadata
from {source} e
where e.stream_id = (
        select s.id from {schema}.streams s
        where s.category = $4 and s.key = $5
          and case when s.state = 0 then true
              when s.state = 1 or s.category <> $4 or s.key <> $5 then false
              else {archived} end
    )
  and e.version > $6 and e.version <= $7 and e.position > $1 and e.position <= $2 {filters}
order by e.version {direction}
limit $3
