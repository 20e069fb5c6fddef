-- The appends in flight. What a session does now, it has done since state_change; an append registers
-- at its end, in a statement or a transaction of its own.
select ((l.classid::bigint & 65535) << 32) | l.objid::bigint, l.pid, p.gid,
    nullif(a.application_name, ''), a.state,
    extract(epoch from clock_timestamp() - coalesce(a.state_change, p.prepared))::float8
from pg_catalog.pg_locks l
left join pg_catalog.pg_stat_activity a on a.pid = l.pid
left join pg_catalog.pg_prepared_xacts p
    on l.pid is null and l.virtualtransaction = '-1/' || p.transaction
where l.locktype = 'advisory' and l.objsubid = 1 and l.granted
  and l.database = (select oid from pg_catalog.pg_database where datname = current_database())
  and (l.classid::bigint >> 16) = (select id from {schema}.store)
order by 1, 2
