-- The appends in flight, the one that holds readers back first. The key of the lock is
-- (store id << 48) | position, see lowest_in_flight.
select min(((l.classid::bigint & 65535) << 32) | l.objid::bigint) as after, l.pid,
    coalesce(a.application_name, ''), a.xact_start
from pg_catalog.pg_locks l
left join pg_catalog.pg_stat_activity a on a.pid = l.pid
where l.locktype = 'advisory' and l.objsubid = 1 and l.granted
    and l.database = (select oid from pg_catalog.pg_database where datname = current_database())
    and (l.classid::bigint >> 16) = (select id from {schema}.store)
group by l.pid, a.application_name, a.xact_start
order by after
