-- Creates the roles of a store, for an administrator to run in the store's database: once, before or after
-- the schema is there. What exists is kept; run it again at any time. Then run the grants.
begin;

-- They may log in, and have no password until you give them one.
do $$ begin
    if to_regrole('{owner}') is null then create role {owner} login; end if;
    if to_regrole('{writer}') is null then create role {writer} login; end if;
    if to_regrole('{reader}') is null then create role {reader} login; end if;
    if to_regrole('{projector}') is null then create role {projector} login; end if;
end $$;

-- The owner has the schema and all in it, and so migrates it.
do $$ begin
    if to_regnamespace('{schema}') is null then create schema {schema}; end if;
end $$;
alter schema {schema} owner to {owner};
do $$
declare
    object record;
begin
    -- Sequences of identity columns go with their tables.
    for object in
        select case when relkind = 'S' then 'sequence' else 'table' end as kind, c.oid::regclass as name
        from pg_catalog.pg_class c
        where relnamespace = '{schema}'::regnamespace and relkind in ('r', 'p', 'S')
          and not exists (select from pg_catalog.pg_depend d
              where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype in ('a', 'i'))
    loop
        execute format('alter %s %s owner to {owner}', object.kind, object.name);
    end loop;
    for object in
        select oid::regprocedure as name from pg_catalog.pg_proc
        where pronamespace = '{schema}'::regnamespace
    loop
        execute format('alter routine %s owner to {owner}', object.name);
    end loop;
end $$;

-- The projector makes the tables of the read models; the reader reads them.
grant usage, create on schema {read_models} to {projector};
grant usage on schema {read_models} to {reader};
alter default privileges for role {projector} in schema {read_models}
    grant select on tables to {reader};
alter default privileges for role {projector} in schema {read_models}
    grant execute on functions to {reader};

-- Rebuilds make tables beside those in use, which go to them, and keep those that they replace. The reader sees
-- neither, but has its right to the tables wherever they are. What is replayed of the past, it reads where it is.
do $$ begin
    if to_regnamespace('{rebuild}') is null then create schema {rebuild}; end if;
    if to_regnamespace('{replaced}') is null then create schema {replaced}; end if;
    if to_regnamespace('{past}') is null then create schema {past}; end if;
end $$;
grant usage, create on schema {rebuild}, {replaced}, {past} to {projector};
grant usage on schema {past} to {reader};
alter default privileges for role {projector} in schema {rebuild}, {past}
    grant select on tables to {reader};

-- PostgreSQL lets everybody execute new functions. Not these.
alter default privileges for role {owner} revoke execute on functions from public;
alter default privileges for role {projector} revoke execute on functions from public;

commit;
