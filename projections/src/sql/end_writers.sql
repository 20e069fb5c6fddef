-- Ends the sessions that are writing to two tables, or creating an index on them (ShareLock).
select pg_terminate_backend(l.pid)
from pg_locks l
where l.locktype = 'relation' and l.mode in ('RowExclusiveLock', 'ShareLock') and l.granted
  and l.database = (select d.oid from pg_database d where d.datname = current_database())
  and l.relation in (to_regclass($1), to_regclass($2))
  and l.pid <> pg_backend_pid()
