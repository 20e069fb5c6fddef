-- Gives those who may use one table the same rights to another, and nobody else any.
do $grants$
declare
    a record;
begin
    for a in
        select distinct case e.grantee when 0 then 'public' else quote_ident(pg_get_userbyid(e.grantee)) end
            as who
        from pg_class c, aclexplode(c.relacl) e
        where c.oid = '{to}'::regclass and e.grantee <> c.relowner
    loop
        execute format('revoke all on {to} from %s', a.who);
    end loop;
    for a in
        select e.privilege_type as what, e.is_grantable, e.grantee, e.columns
        from pg_class c, lateral (
            select x.privilege_type, x.is_grantable, x.grantee, '' as columns from aclexplode(c.relacl) x
            union all
            select x.privilege_type, x.is_grantable, x.grantee, format('(%I)', k.attname)
            from pg_attribute k, aclexplode(k.attacl) x
            where k.attrelid = c.oid and exists (
                select from pg_attribute n where n.attrelid = '{to}'::regclass and n.attname = k.attname)
        ) e
        where c.oid = '{from}'::regclass and e.grantee <> c.relowner
    loop
        execute format('grant %s %s on {to} to %s%s', a.what, a.columns,
            case a.grantee when 0 then 'public' else quote_ident(pg_get_userbyid(a.grantee)) end,
            case when a.is_grantable then ' with grant option' else '' end);
    end loop;
end $grants$
