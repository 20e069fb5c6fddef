-- The life of data: soft-deleted and archived streams, the removal of idempotency keys; and reading by
-- correlation id.

-- 0 live, 1 deleted, 2 archived: its events are in archived_events.
alter table {schema}.streams
    add column state smallint not null default 0 check (state between 0 and 2);

-- An event without a correlation id costs nothing here. The hash, because a key of an index is short
-- and an id need not be. There is no index on types: each event would cost 40 % more to insert, and
-- looking through two million events for a type takes a second.
create index events_by_correlation on {schema}.events
    (hashtextextended(metadata ->> 'correlation_id', 0), position)
    where metadata ->> 'correlation_id' is not null;

-- The events of archived streams, each as it stood in events. A column that events gets, this gets.
create table {schema}.archived_events (like {schema}.events including indexes);

-- Events leave a table only for the other one, unchanged. This runs after the statement, which may have
-- put them there itself. The lock keeps another transaction from moving them on meanwhile.
create function {schema}.refuse_loss() returns trigger language plpgsql
set search_path = {schema}, pg_catalog, pg_temp as $$
declare
    kept bigint;
begin
    if tg_table_name = 'events' then
        with same as (
            select from gone join archived_events e on e.position = gone.position
            where e operator(pg_catalog.*=) gone
            for key share of e
        )
        select count(*) into kept from same;
    else
        with same as (
            select from gone join events e on e.position = gone.position
            where e operator(pg_catalog.*=) gone
            for key share of e
        )
        select count(*) into kept from same;
    end if;
    if kept < (select count(*) from gone) then
        raise exception 'events are immutable: % of %.% is refused', tg_op, tg_table_schema, tg_table_name
            using errcode = 'AN010',
                hint = 'Append an event that corrects the earlier one, or archive the stream.';
    end if;
    return null;
end $$;

drop trigger events_are_immutable on {schema}.events;
create trigger events_are_immutable
    before update or truncate on {schema}.events
    for each statement execute function {schema}.refuse_change();
create trigger events_are_kept
    after delete on {schema}.events referencing old table as gone
    for each statement execute function {schema}.refuse_loss();
create trigger events_are_immutable
    before update or truncate on {schema}.archived_events
    for each statement execute function {schema}.refuse_change();
create trigger events_are_kept
    after delete on {schema}.archived_events referencing old table as gone
    for each statement execute function {schema}.refuse_loss();
alter table {schema}.events enable always trigger events_are_immutable;
alter table {schema}.events enable always trigger events_are_kept;
alter table {schema}.archived_events enable always trigger events_are_immutable;
alter table {schema}.archived_events enable always trigger events_are_kept;

-- A reader that begins waits for an archiving or a restoring that is on its way, and that one for it:
-- so it finds all events of a stream in the log, or none. See refuse_readers_behind.
create function {schema}.await_archiving() returns trigger language plpgsql security definer
set search_path = {schema}, pg_catalog, pg_temp as $$
begin
    perform pg_advisory_xact_lock_shared((select id from store), 30);
    return null;
end $$;
create trigger readers_begin before insert on {schema}.checkpoints
    for each statement execute function {schema}.await_archiving();
alter table {schema}.checkpoints enable always trigger readers_begin;

-- Refuses with AN033 if a reader has not come to the last event of a stream.
create function {schema}.refuse_readers_behind(stream bigint) returns void language plpgsql
set search_path = {schema}, pg_catalog, pg_temp as $$
declare
    last bigint;
    reader record;
begin
    perform pg_advisory_xact_lock((select id from store), 30);
    select max(e.position) into last from (
        (select position from events where stream_id = stream order by version desc limit 1)
        union all
        (select position from archived_events where stream_id = stream order by version desc limit 1)
    ) e;
    select c.name, c.position into reader
    from checkpoints c
    -- What is projected inline has seen all, and its checkpoint stays where it was.
    where c.position < last and not exists (select from inline_projections p where p.name = c.name)
    order by c.position limit 1;
    if found then
        raise exception 'the reader % has come to position %, not to % yet',
            reader.name, reader.position, last
            using errcode = 'AN033',
                hint = 'Let it catch up, or delete its row of checkpoints if it is no longer in use.',
                detail = json_build_object(
                    'reader', reader.name, 'at', reader.position, 'needed', last)::text;
    end if;
end $$;

-- Locks a stream and checks its version: `expected` is -1 for any, -2 for exists, else exact. A stream
-- without events, or at another version, is refused with AN030.
create function {schema}.lock_stream(
    stream_category text, stream_key text, expected bigint,
    out id bigint, out version bigint, out state smallint
) language plpgsql volatile set search_path = {schema}, pg_catalog, pg_temp as $$
begin
    if current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'streams cannot be deleted, archived or restored in a % transaction',
            current_setting('transaction_isolation')
            using errcode = 'AN005', hint = 'Use a READ COMMITTED transaction.';
    end if;
    if current_setting('synchronous_commit') = 'off' then
        -- As an append: durable before it is acknowledged.
        perform set_config('synchronous_commit', 'on', true);
    end if;
    select s.id, s.version, s.state into id, version, state
    from streams s where s.category = stream_category and s.key = stream_key
    for no key update;
    version := coalesce(version, 0);
    if version = 0 or (expected >= 0 and version <> expected) then
        raise exception 'stream %-% is at version %', stream_category, stream_key, version
            using errcode = 'AN030', detail = version::text;
    end if;
end $$;

-- The operations on a stream. Each returns the stream's version, and is done once: again, it finds
-- nothing to do.

create function {schema}.delete_stream(stream_category text, stream_key text, expected bigint)
returns bigint language plpgsql volatile security definer
set search_path = {schema}, pg_catalog, pg_temp as $$
declare
    stream record;
begin
    select * into stream from lock_stream(stream_category, stream_key, expected);
    if stream.state = 2 then
        raise exception 'stream %-% is archived', stream_category, stream_key
            using errcode = 'AN032', hint = 'Restore it first.';
    end if;
    update streams s set state = 1 where s.id = stream.id and s.state = 0;
    return stream.version;
end $$;

create function {schema}.archive_stream(stream_category text, stream_key text, expected bigint)
returns bigint language plpgsql volatile security definer
set search_path = {schema}, pg_catalog, pg_temp as $$
declare
    stream record;
begin
    select * into stream from lock_stream(stream_category, stream_key, expected);
    if stream.state = 1 then
        raise exception 'stream %-% is deleted', stream_category, stream_key
            using errcode = 'AN031', hint = 'Restore it first.';
    elsif stream.state = 0 then
        perform refuse_readers_behind(stream.id);
        with moved as (delete from events e where e.stream_id = stream.id returning e.*)
        insert into archived_events select * from moved;
        update streams s set state = 2 where s.id = stream.id;
    end if;
    return stream.version;
end $$;

create function {schema}.restore_stream(stream_category text, stream_key text)
returns bigint language plpgsql volatile security definer
set search_path = {schema}, pg_catalog, pg_temp as $$
declare
    stream record;
    projected text := current_setting('annals.inline', true);
begin
    select * into stream from lock_stream(stream_category, stream_key, -1);
    if stream.state = 2 then
        perform refuse_readers_behind(stream.id);
        -- To inline projections they are not new.
        perform set_config('annals.inline',
            (select coalesce(array_agg(p.name), '{}')::text from inline_projections p), true);
        with moved as (delete from archived_events e where e.stream_id = stream.id returning e.*)
        insert into events select * from moved;
        perform set_config('annals.inline', coalesce(projected, ''), true);
    end if;
    update streams s set state = 0 where s.id = stream.id and s.state <> 0;
    return stream.version;
end $$;

-- Removes the idempotency keys older than `retention` from some pages of the table, from `from_page`
-- on. Returns how many, and where to go on; null at the end of the table. Walking through the pages
-- bounds the work of each call and needs no index that each append would have to keep. One at a time:
-- who comes meanwhile gets null for both.
create function {schema}.remove_idempotency_keys(
    retention interval, from_page bigint, out removed bigint, out next_page bigint
) language plpgsql volatile security definer
set search_path = {schema}, pg_catalog, pg_temp as $$
declare
    end_page bigint := from_page + 512;
    oldest timestamptz := clock_timestamp() - retention;
begin
    if not pg_try_advisory_xact_lock((select id from store), 31) then
        return;
    end if;
    delete from idempotency i
    where i.ctid >= format('(%s,0)', from_page)::tid and i.ctid < format('(%s,0)', end_page)::tid
      and i.created_at < oldest;
    get diagnostics removed = row_count;
    if end_page * current_setting('block_size')::bigint < pg_relation_size('idempotency') then
        next_page := end_page;
    end if;
end $$;

-- As in 0001, and the log is events and archived_events together.

-- Where time stands: the last event recorded at or before a moment, and the first one after it.
-- Recording times never decrease, so the positions are searched by halves, without an index on time.
create or replace function {schema}.cut(moment timestamptz, out last_before bigint, out first_after bigint)
language plpgsql volatile as $$
declare
    upper_bound bigint;
    middle bigint;
    found record;
begin
    select e.position, e.recorded_at into found from (
        (select position, recorded_at from {schema}.events order by position desc limit 1)
        union all
        (select position, recorded_at from {schema}.archived_events order by position desc limit 1)
    ) e order by e.position desc limit 1;
    last_before := 0;
    if found.position is null then
        return;
    elsif found.recorded_at <= moment then
        last_before := found.position;
        return;
    end if;
    first_after := found.position;
    upper_bound := found.position;
    -- Every event at or below last_before is not after the moment; every one from upper_bound is.
    while last_before + 1 < upper_bound loop
        middle := (last_before + upper_bound) / 2;
        select e.position, e.recorded_at into found from (
            (select position, recorded_at from {schema}.events
             where position >= middle order by position limit 1)
            union all
            (select position, recorded_at from {schema}.archived_events
             where position >= middle order by position limit 1)
        ) e order by e.position limit 1;
        if found.recorded_at > moment then
            first_after := found.position;
            upper_bound := middle;
        else
            last_before := found.position;
        end if;
    end loop;
end $$;
