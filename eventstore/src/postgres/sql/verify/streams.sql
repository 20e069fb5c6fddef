-- Streams above the number $1, at most $2, and whether all is well with each: one statement sees the
-- stream and its events as they were at one moment.
select s.id,
    live.events + archived.events = s.version
        and case s.state when 2 then live.events else archived.events end = 0
        and live.ordered and archived.ordered
from (select * from {schema}.streams where id > $1 order by id limit $2) s
cross join lateral (
    select count(*) as events, coalesce(bool_and(e.version = e.number and e.position > e.previous), true) as ordered
    from (
        select version, position, row_number() over w as number, lag(position, 1, 0::bigint) over w as previous
        from {schema}.events where stream_id = s.id window w as (order by version)
    ) e
) live
cross join lateral (
    select count(*) as events, coalesce(bool_and(e.version = e.number and e.position > e.previous), true) as ordered
    from (
        select version, position, row_number() over w as number, lag(position, 1, 0::bigint) over w as previous
        from {schema}.archived_events where stream_id = s.id window w as (order by version)
    ) e
) archived
order by s.id
