-- What is wrong with the stream of number $1, at one moment again: a row that says what the stream is and
-- how many of its events are in which table, and with it each of at most $2 events that does not follow
-- on the one before it.
select s.category, s.key, s.version, s.state,
    coalesce((
        select max(e.version) from (
            select max(version) as version from {schema}.events where stream_id = s.id
            union all
            select max(version) from {schema}.archived_events where stream_id = s.id
        ) e
    ), 0),
    (select count(*) from {schema}.events where stream_id = s.id),
    (select count(*) from {schema}.archived_events where stream_id = s.id),
    odd.version, odd.position, odd.previous_version, odd.previous_position
from {schema}.streams s
left join lateral (
    select * from (
        select version, position, lag(version, 1, 0::bigint) over w as previous_version,
            lag(position, 1, 0::bigint) over w as previous_position
        from (
            select version, position from {schema}.events where stream_id = s.id
            union all
            select version, position from {schema}.archived_events where stream_id = s.id
        ) e
        window w as (order by version, position)
    ) e
    where version <> previous_version + 1 or position <= previous_position
    order by version, position
    limit $2
) odd on true
where s.id = $1
order by odd.version, odd.position
