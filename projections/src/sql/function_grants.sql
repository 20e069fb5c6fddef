-- What gives back the rights to functions that read a table, once they are made anew.
select format(
    'do $grants$ begin if to_regprocedure(%L) is not null then %s end if; end $grants$;',
    p.oid::regprocedure,
    format('revoke all on function %s from public;', p.oid::regprocedure)
    || coalesce((
        select string_agg(format('grant execute on function %s to %s%s;', p.oid::regprocedure,
            case a.grantee when 0 then 'public' else quote_ident(pg_get_userbyid(a.grantee)) end,
            case when a.is_grantable then ' with grant option' else '' end), '')
        from aclexplode(p.proacl) a where a.grantee <> p.proowner), ''))
from pg_proc p join pg_class t on t.oid = to_regclass($1)
where p.pronamespace = t.relnamespace and p.proacl is not null
  and p.proname in (t.relname || '_as_of', t.relname || '_changes', t.relname || '_versions')
