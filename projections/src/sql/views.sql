-- Views on two tables and on functions that read them, and views on these views; first those that others are
-- built on. With what creates each, and its grants. See in_the_way.sql for all else.
with recursive functions (oid) as (
    select p.oid from pg_proc p join pg_class t on t.oid = to_regclass($1)
    where p.pronamespace = t.relnamespace
      and p.proname in (t.relname || '_as_of', t.relname || '_changes', t.relname || '_versions')
), views (oid, depth) as (
    select r.ev_class, 1
    from pg_depend d join pg_rewrite r on d.classid = 'pg_rewrite'::regclass and d.objid = r.oid
    where d.refclassid = 'pg_class'::regclass and d.refobjid in (to_regclass($1), to_regclass($2))
       or d.refclassid = 'pg_proc'::regclass and d.refobjid in (select oid from functions)
    union
    select r.ev_class, v.depth + 1
    from views v
    join pg_depend d on d.refclassid = 'pg_class'::regclass and d.refobjid = v.oid
    join pg_rewrite r on d.classid = 'pg_rewrite'::regclass and d.objid = r.oid
    where r.ev_class <> v.oid and v.depth < 100
)
select
    v.oid::regclass::text,
    format('create view %s%s as %s', v.oid::regclass,
        ' with (' || nullif(array_to_string(c.reloptions, ', '), '') || ')', pg_get_viewdef(v.oid))
    || format('alter view %s owner to %I;', v.oid::regclass, pg_get_userbyid(c.relowner))
    || coalesce((
        select string_agg(format('grant %s on %s to %s;', a.privilege_type, v.oid::regclass,
            case a.grantee when 0 then 'public' else quote_ident(pg_get_userbyid(a.grantee)) end
            || case when a.is_grantable then ' with grant option' else '' end), '')
        from aclexplode(c.relacl) a where a.grantee <> c.relowner), '')
from (select oid, max(depth) as depth from views group by oid) v
join pg_class c on c.oid = v.oid and c.relkind = 'v'
order by v.depth
