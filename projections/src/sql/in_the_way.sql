-- What depends on two tables, on functions that read them, or on views on either, and cannot be moved to other
-- tables: all but plain views, and what is the tables' and the functions' own.
with recursive own (class, oid) as (
    select 'pg_class'::regclass, t.oid from pg_class t
    where t.oid in (to_regclass($1), to_regclass($2))
    union all
    select 'pg_type'::regclass, t.reltype from pg_class t
    where t.oid in (to_regclass($1), to_regclass($2))
    union all
    select 'pg_type'::regclass, y.typarray from pg_class t join pg_type y on y.oid = t.reltype
    where t.oid in (to_regclass($1), to_regclass($2))
    union all
    -- A foreign key needs the index of its columns.
    select 'pg_class'::regclass, i.indexrelid from pg_index i
    where i.indrelid in (to_regclass($1), to_regclass($2))
    union all
    select 'pg_proc'::regclass, p.oid from pg_proc p join pg_class t on t.oid = to_regclass($1)
    where p.pronamespace = t.relnamespace
      and p.proname in (t.relname || '_as_of', t.relname || '_changes', t.relname || '_versions')
), dependents (class, oid, sub) as (
    select d.classid, d.objid, d.objsubid from own o
    join pg_depend d on d.refclassid = o.class and d.refobjid = o.oid
    where d.deptype in ('n', 'a', 'x')
    union
    select d.classid, d.objid, d.objsubid
    from dependents v
    join pg_rewrite r on v.class = 'pg_rewrite'::regclass and r.oid = v.oid
    join pg_depend d on d.deptype in ('n', 'a') and (
        d.refclassid = 'pg_class'::regclass and d.refobjid = r.ev_class
        or d.refclassid = 'pg_type'::regclass
            and d.refobjid = (select c.reltype from pg_class c where c.oid = r.ev_class))
)
select pg_describe_object(d.class, d.oid, d.sub)
from dependents d
where not exists (select from own o where o.class = d.class and o.oid = d.oid)
  -- Views and their own rules, unless the view holds rows.
  and not exists (
      select from pg_class c
      where d.class = 'pg_class'::regclass and c.oid = d.oid and c.relkind = 'v')
  and not exists (
      select from pg_rewrite r join pg_class c on c.oid = r.ev_class
      where d.class = 'pg_rewrite'::regclass and r.oid = d.oid and c.relkind = 'v')
  -- Defaults, checks and keys of the tables themselves.
  and d.class <> 'pg_attrdef'::regclass
  and not exists (
      select from pg_constraint c
      where d.class = 'pg_constraint'::regclass and c.oid = d.oid
        and c.conrelid in (to_regclass($1), to_regclass($2)) and c.contype <> 'f')
  and not exists (
      select from pg_trigger t
      where d.class = 'pg_trigger'::regclass and t.oid = d.oid and t.tgisinternal)
order by 1
