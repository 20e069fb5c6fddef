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

-- The three functions that follow were there before. What is new in the first two: the log is events
-- and archived_events together. In the last: the state of the streams.

-- Draws `total` neighbouring positions and a recording time that is not before any earlier one, so
-- that time never goes back from a position to the next. Returns the first position and the time.
-- With supplied times (the first and the last of the append's) it only checks: one before the last
-- recorded time is refused with AN001. The caller holds the time lock (store id, 2), see append_batch.
create or replace function {schema}.draw_positions(
    total bigint, supplied_first timestamptz, supplied_last timestamptz,
    out first_position bigint, out recording_time timestamptz
) language plpgsql volatile as $$
declare
    store_id integer := (select id from {schema}.store);
    handed_out bigint;
begin
    -- The last recorded event, also an archived one, unless an append in flight took a later time,
    -- which is in the counter.
    recording_time := greatest(
        (select e.recorded_at from {schema}.events e order by e.position desc limit 1),
        (select e.recorded_at from {schema}.archived_events e order by e.position desc limit 1));
    if supplied_first < recording_time then
        raise exception 'recording time goes back' using errcode = 'AN001',
            detail = (extract(epoch from recording_time) * 1000000)::bigint::text;
    end if;
    begin
        -- One append at a time, for microseconds and not until its commit: undoing this block gives
        -- the lock back. The counters are outside of transactions and keep what they are set to.
        perform pg_advisory_xact_lock(store_id, 1);
        if supplied_last is null then
            select case when is_called then last_value end into handed_out
            from {schema}.recorded_micros;
            handed_out := greatest(handed_out,
                (extract(epoch from recording_time) * 1000000)::bigint,
                (extract(epoch from clock_timestamp()) * 1000000)::bigint);
            perform setval('{schema}.recorded_micros', handed_out);
            recording_time := timestamptz 'epoch' + handed_out * interval '1 microsecond';
        else
            recording_time := supplied_last;
        end if;
        first_position := {schema}.last_position() + 1;
        perform setval('{schema}.positions', first_position + total - 1);
        -- Not AN000: a code that ends in 000 stands for all codes of its class.
        raise exception using errcode = 'AN009';
    exception when sqlstate 'AN009' then
        -- The values that were assigned stay.
    end;
end $$;

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

-- Appends many appends in one round trip. Each succeeds or fails as a whole and for itself; no two
-- of them share a stream or an idempotency key. Arrays starting with:
--   s_  one element for each stream of each append, grouped by append: the append's number (from
--       1), the stream, the expected version (-1 any, -2 exists, else exact), how many events
--   e_  one element for each event, in the order of positions: the index of its stream in s_, its
--       number among the append's events for that stream (from 1), and the event
--   k_  one element for each idempotency key: the append's number, the index of the stream in s_,
--       the key and fingerprint, the number of the last event for that stream, the index of the
--       command's last event in e_ (0 for none), how many events
-- Returns a row for each element of s_: the outcome of its append (0 recorded, 1 conflict, 2 key
-- taken; 3 a stream of it is not live, and this one is, 4 this one is deleted, 5 archived), the
-- stream's version before it, the first position drawn for the batch.
create or replace function {schema}.append_batch(
    s_append integer[], s_category text[], s_key text[], s_expected bigint[], s_events integer[],
    e_stream integer[], e_number integer[], e_id uuid[], e_type text[], e_schema integer[],
    e_occurred timestamptz[], e_recorded timestamptz[], e_payload json[], e_metadata json[],
    k_append integer[], k_stream integer[], k_key text[], k_fingerprint bytea[],
    k_number integer[], k_last integer[], k_events integer[]
) returns table (outcome integer, version_before bigint, first_position bigint)
language plpgsql volatile security definer
set search_path = {schema}, pg_catalog, pg_temp
-- A batch is small and the tables are large: reach rows by index, whatever the statistics say.
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
    ids bigint[];
    versions bigint[];
    states smallint[];
    found bigint[];
    outcomes integer[];
    -- For each append, how many events of refused appends come before it.
    refused bigint[];
    total bigint;
    first bigint := 0;
    recording_time timestamptz;
    taken bigint;
begin
    -- 1. The streams that may be new. In the order of their names, here and below: two batches
    -- that share streams wait for each other, and never both for each other.
    insert into streams (category, key, version)
    select s.category, s.key, 0
    from unnest(s_category, s_key, s_expected) s(category, key, expected)
    where s.expected in (0, -1)
      and not exists (select from streams old where old.category = s.category and old.key = s.key)
    order by s.category, s.key
    on conflict do nothing;

    -- 2. Lock the streams, and see where they are.
    with locked as materialized (
        select streams.id, streams.version, streams.state, s.ord
        from unnest(s_category, s_key) with ordinality s(category, key, ord)
        join streams on streams.category = s.category and streams.key = s.key
        order by streams.category, streams.key
        for no key update of streams
    )
    select array_agg(l.id order by l.ord), array_agg(l.version order by l.ord),
        array_agg(l.state order by l.ord), array_agg(l.ord order by l.ord)
    into ids, versions, states, found
    from locked l;
    if found is null or cardinality(found) < cardinality(s_key) then
        -- Some do not exist, and their appends expect them to: no id, version 0.
        select array_agg(ids[array_position(found, n)] order by n),
            array_agg(coalesce(versions[array_position(found, n)], 0) order by n),
            array_agg(coalesce(states[array_position(found, n)], 0) order by n)
        into ids, versions, states
        from generate_series(1::bigint, cardinality(s_key)) n;
    end if;
    if 1 = any (states) then
        -- Who read a deleted stream found none. An append that only rests on that is recorded.
        select array_agg(case when s.is_none then 0 else s.version end order by s.ord),
            array_agg(case when s.is_none then 0 else s.state end order by s.ord)
        into versions, states
        from (
            select u.ord, u.version, u.state,
                u.state = 1 and u.events = 0 and u.expected = 0 as is_none
            from unnest(versions, states, s_events, s_expected) with ordinality
                u(version, state, events, expected, ord)
        ) s;
    end if;

    -- 3. Decide on each append. A known key comes first: the append has happened. A stream that is
    -- not live comes before a conflict: no version would help.
    with expectations as (
        select s.append, bool_or(case s.expected
            when -1 then false
            when -2 then s.version = 0
            else s.version <> s.expected end) as conflict, bool_or(s.state <> 0) as not_live
        from unnest(s_append, s_expected, versions, states) s(append, expected, version, state)
        group by s.append
    ), known as (
        select distinct k.append
        from unnest(k_append, k_key) k(append, key)
        join idempotency i on i.key = k.key
    )
    select array_agg(case when known.append is not null then 2 when x.not_live then 3
        when x.conflict then 1 else 0 end order by x.append)
    into outcomes
    from expectations x left join known on known.append = x.append;

    select sum(a.events) filter (where outcomes[a.append] = 0),
        array_agg(a.refused order by a.append)
    into total, refused
    from (
        select s.append, sum(s.events) as events, coalesce(sum(sum(s.events))
            filter (where outcomes[s.append] <> 0)
            over (order by s.append rows between unbounded preceding and 1 preceding), 0) as refused
        from unnest(s_append, s_events) s(append, events)
        group by s.append
    ) a;

    if total > 0 then
        -- 4. The time lock. Appends that bring times go one after the other: what one of them is
        -- compared with is recorded, and not on its way and perhaps never to arrive.
        if e_recorded[1] is null then
            perform pg_advisory_xact_lock_shared((select id from store), 2);
        else
            perform pg_advisory_xact_lock((select id from store), 2);
        end if;
        -- Register, so that readers stay below the positions drawn next until this commits.
        perform pg_advisory_xact_lock_shared(
            ((select id from store)::bigint << 48) | last_position());
        select d.first_position, d.recording_time into first, recording_time
        from draw_positions(total, e_recorded[1], e_recorded[cardinality(e_recorded)]) d;

        -- 5. Record.
        insert into events (position, stream_id, version, event_id, type, schema_version,
            recorded_at, occurred_at, payload, metadata)
        select first + row_number() over (order by e.ord) - 1, ids[e.stream],
            versions[e.stream] + e.number, e.id, e.type, e.schema, coalesce(e.recorded, recording_time),
            e.occurred, e.payload, e.metadata
        from unnest(e_stream, e_number, e_id, e_type, e_schema, e_occurred, e_recorded, e_payload,
            e_metadata) with ordinality
            e(stream, number, id, type, schema, occurred, recorded, payload, metadata, ord)
        where outcomes[s_append[e.stream]] = 0;

        update streams
        set version = streams.version + s.events
        from unnest(ids, s_append, s_events) s(id, append, events)
        where streams.id = s.id and outcomes[s.append] = 0 and s.events > 0;
    end if;

    if cardinality(k_key) > 0 then
        insert into idempotency (key, fingerprint, version, position, events)
        select k.key, k.fingerprint, versions[k.stream] + k.number,
            case when k.last = 0 then 0 else first + k.last - 1 - refused[k.append] end, k.events
        from unnest(k_append, k_stream, k_key, k_fingerprint, k_number, k_last, k_events)
            k(append, stream, key, fingerprint, number, last, events)
        where outcomes[k.append] = 0
        order by k.key
        on conflict do nothing;
        get diagnostics taken = row_count;
        -- Another transaction recorded a key after it was looked up above. Undo all; the caller
        -- appends each alone, and finds the key.
        if taken <> (select count(*) from unnest(k_append) a where outcomes[a] = 0) then
            raise exception 'an idempotency key was taken meanwhile' using errcode = 'AN002';
        end if;
    end if;

    return query
    select case outcomes[s.append] when 3 then 3 + s.state else outcomes[s.append] end,
        s.version, first
    from unnest(s_append, versions, states) with ordinality s(append, version, state, ord)
    order by s.ord;
end $$;
