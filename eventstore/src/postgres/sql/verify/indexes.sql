-- The columns of each valid unique index of the schema.
select c.relname::text, array_agg(a.attname::text order by k.ord)
from pg_catalog.pg_index i
join pg_catalog.pg_class c on c.oid = i.indrelid
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
cross join lateral unnest(i.indkey::int2[]) with ordinality k(attnum, ord)
join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum = k.attnum
where n.nspname = $1 and i.indisunique and i.indisvalid and i.indpred is null
group by c.relname, i.indexrelid
