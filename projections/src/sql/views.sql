-- Views on two tables, on their rows' types and on functions that return these, and views on these views;
-- first those that others are built on. With what creates each, and its grants.
with recursive dependents (oid, depth) as (
    select distinct r.ev_class, 1
    from pg_depend d join pg_rewrite r on r.oid = d.objid
    where d.classid = 'pg_rewrite'::regclass
      and (d.refclassid = 'pg_class'::regclass and d.refobjid in (to_regclass($1), to_regclass($2))
        or d.refclassid = 'pg_proc'::regclass and d.refobjid in (
            select p.oid from pg_proc p join pg_class t on t.oid = to_regclass($1)
            where p.pronamespace = t.relnamespace
              and p.proname in (t.relname || '_as_of', t.relname || '_changes', t.relname || '_versions')))
      and r.ev_class not in (to_regclass($1), coalesce(to_regclass($2), 0))
    union
    select r.ev_class, v.depth + 1
    from dependents v
    join pg_depend d on d.refclassid = 'pg_class'::regclass and d.refobjid = v.oid
    join pg_rewrite r on r.oid = d.objid and d.classid = 'pg_rewrite'::regclass
    where r.ev_class <> v.oid and v.depth < 100
)
select
    v.oid::regclass::text,
    c.relkind::text,
    format('create view %s%s as %s', v.oid::regclass,
        coalesce(' with (' || array_to_string(c.reloptions, ', ') || ')', ''),
        pg_get_viewdef(v.oid))
    || coalesce((
        select string_agg(format('; grant %s on %s to %s', a.privilege_type, v.oid::regclass,
            case a.grantee when 0 then 'public' else quote_ident(pg_get_userbyid(a.grantee)) end
            || case when a.is_grantable then ' with grant option' else '' end), '')
        from aclexplode(c.relacl) a where a.grantee <> c.relowner), '')
from (select oid, max(depth) as depth from dependents group by oid) v
join pg_class c on c.oid = v.oid
order by v.depth
