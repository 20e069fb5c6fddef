-- Gives those who may use one table the same rights to another.
do $$
declare
    a record;
begin
    for a in
        select e.privilege_type, e.is_grantable,
            case e.grantee when 0 then 'public' else quote_ident(pg_get_userbyid(e.grantee)) end as who
        from pg_class c, aclexplode(c.relacl) e
        where c.oid = '{from}'::regclass and e.grantee <> c.relowner
    loop
        execute format('grant %s on {to} to %s%s', a.privilege_type, a.who,
            case when a.is_grantable then ' with grant option' else '' end);
    end loop;
end $$;
