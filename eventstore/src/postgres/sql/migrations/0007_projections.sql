-- What is known of each projection beside its checkpoint. {schema} is replaced by the quoted name of
-- the store's schema.
create table {schema}.projections (
    -- That of its checkpoint. One in slices has a checkpoint for each: the name, a slash, and a number
    -- from 0 on.
    name text primary key,
    -- What it is: they share their names.
    kind text not null default 'rows' check (kind in ('rows', 'sql', 'reactor')),
    slices smallint not null default 1 check (slices > 0),
    -- The version of the code that made what is there; another one builds it anew.
    version integer not null default 1,
    -- Its history is kept from this position on.
    kept_from bigint not null default 0,
    -- Why it does not run, if it was paused: by a person, or by itself after failures.
    paused text,
    -- Of a rebuild: its tables lack rows or indexes yet, so they replace no others.
    unfinished boolean not null default false,
    -- Why nothing is tried before a time, if what it acts on failed again and again.
    broken text,
    broken_until timestamptz,
    changed_at timestamptz not null default clock_timestamp()
);

-- Streams whose events a projection leaves out from a position on, since the one there failed.
create table {schema}.parked_streams (
    projection text not null,
    category text not null,
    key text not null,
    -- The event that failed, and why.
    position bigint not null,
    version bigint not null,
    reason text not null,
    attempts integer not null default 1,
    parked_at timestamptz not null default clock_timestamp(),
    -- What an operator has asked for.
    asked text check (asked in ('retry', 'discard')),
    primary key (projection, category, key)
);

-- The tables that a rebuild replaced, kept for a rollback: how far their slices had come, and what was
-- known of them.
create table {schema}.replaced_projections (
    name text primary key,
    slices smallint not null,
    version integer not null,
    kept_from bigint not null,
    positions bigint[] not null,
    replaced_at timestamptz not null default clock_timestamp()
);

-- The names of the checkpoints of a projection.
create function {schema}.checkpoints_of(projection text) returns text[] language sql stable
as $$
    select case
        when coalesce((select p.slices from {schema}.projections p where p.name = projection), 1) = 1
            then array[projection]
        else (
            select array_agg(projection || '/' || n)
            from {schema}.projections p, generate_series(0, p.slices - 1) n
            where p.name = projection)
    end
$$;

-- How far a projection has come: all of its slices; null if it has no checkpoint. One that runs inline
-- has seen all that is recorded, which the safe position says: it holds for the next statement.
create or replace function {schema}.reached(projection text) returns bigint
language plpgsql volatile
as $$
declare
    names text[];
    position_of bigint;
begin
    if not exists (select from {schema}.inline_projections p where p.name = projection) then
        names := {schema}.checkpoints_of(projection);
        select case when count(*) = cardinality(names) then min(c.position) end into position_of
        from {schema}.checkpoints c where c.name = any (names);
        return position_of;
    end if;
    if current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'an inline projection cannot be asked as of a moment in a % transaction',
            current_setting('transaction_isolation')
            using errcode = 'AN005', hint = 'Ask in a READ COMMITTED transaction.';
    end if;
    return {schema}.safe_position();
end $$;

-- Raises an error unless a projection has its history at a position.
create function {schema}.check_moment(projection text, label text, moment bigint) returns void
language plpgsql volatile
as $$
declare
    reached bigint := coalesce({schema}.reached(projection), 0);
    kept bigint;
begin
    if moment is null then
        raise exception 'a moment is needed, not null' using errcode = 'null_value_not_allowed';
    elsif moment > reached then
        raise exception '% has come to position %, not to % yet', label, reached, moment
            using errcode = 'AN004', hint = 'Is its worker running?';
    end if;
    select p.kept_from into kept from {schema}.projections p where p.name = projection;
    if kept > 0 and moment < kept then
        raise exception '% keeps its history from position % on, not as of %', label, kept, moment
            using errcode = 'AN013', hint = 'Replay the log up to that moment instead.';
    end if;
end $$;
