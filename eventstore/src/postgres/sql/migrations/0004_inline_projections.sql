-- Inline projections: what must be up to date when an append of these categories commits. The name
-- is that of the checkpoint. {schema} is replaced by the quoted name of the store's schema.
create table {schema}.inline_projections (
    name text primary key,
    categories text[] not null,
    registered_at timestamptz not null default clock_timestamp()
);

-- Locks of an inline projection are advisory ones of two numbers, so that they are never taken for the
-- registration of an append, whose keys are one number. The first number is the projection's, negative.
-- The second is 0 for the projection as a whole, and else a row's, above 0.
--
-- Takes locks in the order given, which all callers share: by both numbers. `whole` says which are
-- exclusive on the projection as a whole; who locks rows takes that lock shared. Afterwards the
-- transaction may append what these projections must see.
create function {schema}.enter_inline(
    names text[], projections integer[], locks integer[], exclusive boolean[]
) returns void language plpgsql volatile security definer
set search_path = {schema}, pg_catalog, pg_temp
as $$
declare
    gone text;
begin
    for n in 1 .. cardinality(locks) loop
        if exclusive[n] then
            perform pg_advisory_xact_lock(projections[n], locks[n]);
        else
            perform pg_advisory_xact_lock_shared(projections[n], locks[n]);
        end if;
    end loop;
    -- Under the lock: who takes a projection away holds it exclusively.
    select min(n.name) into gone
    from unnest(names) n(name)
    where not exists (select from inline_projections p where p.name = n.name);
    if gone is not null then
        raise exception 'inline projection % is not registered', gone
            using errcode = 'AN012', detail = gone;
    end if;
    perform set_config('annals.inline', names::text, true);
end $$;

-- Refuses events that inline projections must see and that come another way. It is a trigger of the
-- events once there is an inline projection.
create function {schema}.refuse_bypass() returns trigger
language plpgsql volatile security definer
set search_path = {schema}, pg_catalog, pg_temp
as $$
declare
    missing text;
begin
    select string_agg(distinct p.name, ', ') into missing
    from (select distinct stream_id from added) a
    join streams s on s.id = a.stream_id
    join inline_projections p on s.category = any (p.categories)
    where p.name <> all
        (coalesce(nullif(current_setting('annals.inline', true), ''), '{}')::text[]);
    if missing is not null then
        raise exception 'inline projections would not see this append: %', missing
            using errcode = 'AN011', detail = missing,
                hint = 'Append through a store that was opened with them.';
    end if;
    return null;
end $$;

-- Makes a projection inline. No append is under way when this returns, and none starts before the
-- transaction ends: what is recorded by then, the caller projects in the same transaction. The lock of
-- the projection comes first, so that a store that runs it already draws no position in between.
create function {schema}.register_inline(projection text, number integer, of_categories text[])
returns void language plpgsql volatile security definer
set search_path = {schema}, pg_catalog, pg_temp
as $$
begin
    perform pg_advisory_xact_lock(number, 0);
    lock table events in share row exclusive mode;
    create or replace trigger inline_projections_see_all
        after insert on events referencing new table as added
        for each statement execute function refuse_bypass();
    insert into inline_projections (name, categories) values (projection, of_categories);
end $$;

-- Takes it away again, once the appends under way that it sees have ended.
create function {schema}.forget_inline(projection text, number integer)
returns void language plpgsql volatile security definer
set search_path = {schema}, pg_catalog, pg_temp
as $$
begin
    perform pg_advisory_xact_lock(number, 0);
    delete from inline_projections where name = projection;
end $$;

-- How far a projection has come; null if it has no checkpoint. One that runs inline has seen all that
-- is recorded, which the safe position says: it holds for the next statement.
create function {schema}.reached(projection text) returns bigint
language plpgsql volatile
as $$
begin
    if not exists (select from {schema}.inline_projections p where p.name = projection) then
        return (select c.position from {schema}.checkpoints c where c.name = projection);
    end if;
    if current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'an inline projection cannot be asked as of a moment in a % transaction',
            current_setting('transaction_isolation')
            using errcode = 'AN005', hint = 'Ask in a READ COMMITTED transaction.';
    end if;
    return {schema}.safe_position();
end $$;
