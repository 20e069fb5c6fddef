-- The triggers of the schema's tables: whether each fires always, what it is, and what it calls.
select c.relname::text, t.tgname::text, t.tgenabled = 'A', t.tgenabled = 'D', t.tgtype::integer,
    case when p.pronamespace = c.relnamespace then p.proname::text end,
    t.tgqual is not null or t.tgattr::text <> ''
from pg_catalog.pg_trigger t
join pg_catalog.pg_class c on c.oid = t.tgrelid
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
join pg_catalog.pg_proc p on p.oid = t.tgfoid
where n.nspname = $1 and not t.tgisinternal
