-- Events of both tables in their order, at most $4: in events above $1, in archived_events from $2 on, up
-- to $3. Content only of those categories, $5, whose events are decoded. Each table gives its first $4 by
-- its index, so that a page costs a page.
select e.position, e.archived, e.version, e.recorded_at, e.stream_id, s.category, s.key,
    e.metadata::text, e.schema_version,
    case when s.category = any ($5) then e.type end,
    case when s.category = any ($5) then e.payload end
from (
    (select false as archived, * from {schema}.events
     where position > $1 and position <= $3 order by position limit $4)
    union all
    (select true, * from {schema}.archived_events
     where position >= $2 and position <= $3 order by position limit $4)
) e
left join lateral (
    select s.category, s.key from {schema}.streams s where s.id = e.stream_id offset 0
) s on true
order by e.position, e.archived
limit $4
