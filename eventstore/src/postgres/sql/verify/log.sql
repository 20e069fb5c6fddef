-- Events of both tables from position $1 on up to $2, in their order, at most $3. Content only of those
-- categories, $4, whose events are decoded. Each table gives its first $3 by its index, so that a page
-- costs a page.
select e.position, e.version, e.recorded_at, e.stream_id, s.category, s.key, e.metadata::text,
    e.schema_version,
    case when s.category = any ($4) then e.type end,
    case when s.category = any ($4) then e.payload end
from (
    (select false as archived, * from {schema}.events
     where position >= $1 and position <= $2 order by position limit $3)
    union all
    (select true, * from {schema}.archived_events
     where position >= $1 and position <= $2 order by position limit $3)
) e
left join lateral (
    select s.category, s.key from {schema}.streams s where s.id = e.stream_id offset 0
) s on true
order by e.position, e.archived
limit $3
