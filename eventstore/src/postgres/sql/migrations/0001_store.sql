-- The event store. {schema} is replaced by the quoted name of the store's schema.

-- One row. The id marks this store's advisory locks among those of the database. It is drawn at
-- random, from 1 on, so that small keys stay free for others; two stores of one database that share
-- it only wait for each other's appends at times.
create table {schema}.store (
    only_row boolean primary key default true check (only_row),
    id integer not null default 1 + floor(random() * 32767)::integer check (id between 1 and 32767),
    created_at timestamptz not null default clock_timestamp()
);
insert into {schema}.store default values;

create table {schema}.streams (
    id bigint generated always as identity primary key,
    category text not null,
    key text not null,
    -- The version of the last event; 0 where an append prepared the row and then recorded nothing.
    version bigint not null,
    unique (category, key)
);

-- No foreign key to streams: append_batch is the only writer and holds the stream's row, and the
-- check of every event would cost more than all its other work.
create table {schema}.events (
    position bigint primary key,
    stream_id bigint not null,
    version bigint not null,
    event_id uuid not null,
    type text not null,
    schema_version integer not null,
    recorded_at timestamptz not null,
    occurred_at timestamptz,
    payload json not null,
    metadata json,
    unique (stream_id, version)
);

create table {schema}.idempotency (
    key text primary key,
    fingerprint bytea not null,
    -- The outcome: the stream's version after the command, its last event's position, and how
    -- many events there are. They have neighbouring positions.
    version bigint not null,
    position bigint not null,
    events integer not null,
    created_at timestamptz not null default clock_timestamp()
);

-- How far each reader of the log has come. The epoch is that of the reader's lease: a reader that
-- was replaced while it slept changes nothing when it wakes up.
create table {schema}.checkpoints (
    name text primary key,
    position bigint not null,
    epoch bigint not null default 0,
    updated_at timestamptz not null default clock_timestamp()
);

create table {schema}.leases (
    name text primary key,
    owner text not null,
    epoch bigint not null,
    expires_at timestamptz not null
);

-- Two counters outside of transactions. positions: the last position drawn. recorded_micros: the
-- last time of the database's clock handed out, in microseconds since 1970. Both only change in
-- draw_positions.
create sequence {schema}.positions cache 1;
create sequence {schema}.recorded_micros minvalue -9223372036854775807
    start with -9223372036854775807 cache 1;

create function {schema}.refuse_change() returns trigger language plpgsql as $$
begin
    raise exception 'events are immutable: % of %.% is refused', tg_op, tg_table_schema, tg_table_name
        using errcode = 'AN010', hint = 'Append an event that corrects the earlier one.';
end $$;

-- The events of a stream that is gone could not be read.
create trigger streams_stay
    before delete or truncate on {schema}.streams
    for each statement execute function {schema}.refuse_change();
alter table {schema}.streams enable always trigger streams_stay;

create trigger events_are_immutable
    before update or delete or truncate on {schema}.events
    for each statement execute function {schema}.refuse_change();
-- Also in sessions that replay with session_replication_role = replica.
alter table {schema}.events enable always trigger events_are_immutable;

-- The last position drawn; 0 before the first. (A pristine sequence says 1 for "none yet".)
create function {schema}.last_position() returns bigint language sql volatile as $$
    select case when is_called then last_value else 0 end from {schema}.positions
$$;

-- The lowest position that an append in flight has registered: it will draw higher ones only.
-- The key of the lock is (store id << 48) | position.
create function {schema}.lowest_in_flight() returns bigint language sql volatile as $$
    select min(((classid::bigint & 65535) << 32) | objid::bigint)
    from pg_catalog.pg_locks
    where locktype = 'advisory' and objsubid = 1 and granted
      and database = (select oid from pg_catalog.pg_database where datname = current_database())
      and (classid::bigint >> 16) = (select id from {schema}.store)
$$;

-- Every event that will ever stand at or below the safe position is visible to the NEXT statement
-- (READ COMMITTED), but not to one that calls this function itself. last_position comes first: an
-- append that registers after it draws higher positions.
create function {schema}.safe_position() returns bigint language plpgsql volatile as $$
declare
    last bigint := {schema}.last_position();
    lowest bigint := {schema}.lowest_in_flight();
begin
    if pg_is_in_recovery() then
        -- Locks of the primary are not seen here: events of appends in flight would be lost.
        raise exception 'the log can only be followed on the primary, not on a standby'
            using errcode = 'AN007';
    end if;
    return least(last, lowest);
end $$;

-- Draws `total` neighbouring positions and a recording time that is not before any earlier one, so
-- that time never goes back from a position to the next. Returns the first position and the time.
-- With supplied times (the first and the last of the append's) it only checks: one before the last
-- recorded time is refused with AN001. The caller holds the time lock (store id, 2), see append_batch.
create function {schema}.draw_positions(
    total bigint, supplied_first timestamptz, supplied_last timestamptz,
    out first_position bigint, out recording_time timestamptz
) language plpgsql volatile as $$
declare
    store_id integer := (select id from {schema}.store);
    handed_out bigint;
begin
    -- The last recorded event, unless an append in flight took a later time, which is in the counter.
    select e.recorded_at into recording_time
    from {schema}.events e order by e.position desc limit 1;
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
-- taken), the stream's version before it, the first position drawn for the batch.
create function {schema}.append_batch(
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
        select streams.id, streams.version, s.ord
        from unnest(s_category, s_key) with ordinality s(category, key, ord)
        join streams on streams.category = s.category and streams.key = s.key
        order by streams.category, streams.key
        for no key update of streams
    )
    select array_agg(l.id order by l.ord), array_agg(l.version order by l.ord),
        array_agg(l.ord order by l.ord)
    into ids, versions, found
    from locked l;
    if found is null or cardinality(found) < cardinality(s_key) then
        -- Some do not exist, and their appends expect them to: no id, version 0.
        select array_agg(ids[array_position(found, n)] order by n),
            array_agg(coalesce(versions[array_position(found, n)], 0) order by n)
        into ids, versions
        from generate_series(1::bigint, cardinality(s_key)) n;
    end if;

    -- 3. Decide on each append. A known key comes before a conflict: the append has happened.
    with expectations as (
        select s.append, bool_or(case s.expected
            when -1 then false
            when -2 then s.version = 0
            else s.version <> s.expected end) as conflict
        from unnest(s_append, s_expected, versions) s(append, expected, version)
        group by s.append
    ), known as (
        select distinct k.append
        from unnest(k_append, k_key) k(append, key)
        join idempotency i on i.key = k.key
    )
    select array_agg(case when known.append is not null then 2 when x.conflict then 1 else 0 end
        order by x.append)
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
    select outcomes[s.append], s.version, first
    from unnest(s_append, versions) with ordinality s(append, version, ord)
    order by s.ord;
end $$;

-- Where time stands: the last event recorded at or before a moment, and the first one after it.
-- Recording times never decrease, so the positions are searched by halves, without an index on time.
create function {schema}.cut(moment timestamptz, out last_before bigint, out first_after bigint)
language plpgsql volatile as $$
declare
    upper_bound bigint;
    middle bigint;
    found record;
begin
    select position, recorded_at into found from {schema}.events order by position desc limit 1;
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
        select position, recorded_at into found
        from {schema}.events where position >= middle order by position limit 1;
        if found.recorded_at > moment then
            first_after := found.position;
            upper_bound := middle;
        else
            last_before := found.position;
        end if;
    end loop;
end $$;

-- The position as of a moment: that of the last event recorded at or before it; null while appends
-- are in flight that could still record such an event. A moment that is not over is refused with
-- AN003. `clock` is the supplied clock of the store, if any. asked_when is null at the first try, and
-- at the next what came back.
create function {schema}.try_position_at(
    moment timestamptz, clock timestamptz, inout asked_when bigint, out at_position bigint
) language plpgsql volatile as $$
declare
    present timestamptz := coalesce(clock, clock_timestamp());
    found record;
    settled boolean;
begin
    asked_when := coalesce(asked_when, {schema}.last_position());
    select * into found from {schema}.cut(moment);
    if found.first_after is not null then
        -- Appends in flight above the first later event record later times.
        settled := {schema}.safe_position() >= found.first_after - 1;
    elsif moment >= present then
        raise exception 'cannot answer as of %: it is in the future', moment
            using errcode = 'AN003',
                detail = (extract(epoch from present) * 1000000)::bigint::text;
    else
        -- An append that registers from now on takes a later time; wait for those before.
        settled := coalesce({schema}.lowest_in_flight() > asked_when, true);
    end if;
    if settled then
        -- Again: what was in flight above may be recorded now.
        select last_before into at_position from {schema}.cut(moment);
    end if;
end $$;

-- The same, and waits.
create function {schema}.position_at(moment timestamptz, clock timestamptz default null)
returns bigint language plpgsql volatile as $$
declare
    tried record;
begin
    if current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'position_at cannot see appends end in a % transaction',
            current_setting('transaction_isolation')
            using errcode = 'AN005', hint = 'Ask in a READ COMMITTED transaction, or as of a position.';
    end if;
    select * into tried from {schema}.try_position_at(moment, clock, null);
    while tried.at_position is null loop
        perform pg_sleep(0.002);
        select * into tried from {schema}.try_position_at(moment, clock, tried.asked_when);
    end loop;
    return tried.at_position;
end $$;
