-- The append again, with less work where every stream is as expected: it is moved on in one statement, that
-- finds, checks, locks and updates it, instead of being locked and looked at first and updated afterwards.

-- Names of streams are compared byte by byte, as everywhere else, whatever the collation of the database:
-- the order of the index is the order in which appends lock streams, and comparing takes less time.
alter table {schema}.streams
    alter column category type text collate "C",
    alter column key type text collate "C";

-- Appends many appends in one round trip. Each succeeds or fails as a whole and for itself; no two
-- of them share a stream or an idempotency key. Arrays starting with:
--   s_  one element for each stream of each append, in the order of their names, the same for every
--       caller: the append's number (from 1), the stream, the expected version (-1 any, -2 exists, else
--       exact), how many events
--   e_  one element for each event, in the order of positions: the index of its stream in s_, its
--       number among the append's events for that stream (from 1), and the event
--   k_  one element for each idempotency key: the append's number, the index of the stream in s_,
--       the key and fingerprint, the number of the last event for that stream, the index of the
--       command's last event in e_ (0 for none), how many events
-- Returns, for each element of s_, the outcome of its append (0 recorded, 1 conflict, 2 key taken; 3 a
-- stream of it is not live, and this one is, 4 this one is deleted, 5 archived), null where every append
-- is recorded; the streams' versions before; the first position drawn for the batch.
create or replace function {schema}.append_batch(
    s_append integer[], s_category text[], s_key text[], s_expected bigint[], s_events integer[],
    e_stream integer[], e_number integer[], e_id uuid[], e_type text[], e_schema integer[],
    e_occurred timestamptz[], e_recorded timestamptz[], e_payload json[], e_metadata json[],
    k_append integer[], k_stream integer[], k_key text[], k_fingerprint bytea[],
    k_number integer[], k_last integer[], k_events integer[],
    out stream_outcomes integer[], out versions bigint[], out first_position bigint
) language plpgsql volatile security definer
set search_path = {schema}, pg_catalog, pg_temp
-- A batch is small and the tables are large: reach rows by index, whatever the statistics say.
set enable_hashjoin = off
set enable_mergejoin = off
-- Where there are next to no streams, the planner would begin with them. Then they come in the order of
-- their index, which is that of their names too, so locks are taken in the same order.
set enable_seqscan = off
-- A scan that is off passes for one that is worth compiling.
set jit = off
-- Planning anew for the lengths of the arrays would take longer than all the rest.
set plan_cache_mode = force_generic_plan
as $$
declare
    ids bigint[];
    states smallint[];
    -- Where in s_ the streams are that were found as expected.
    found_at bigint[];
    is_as_expected boolean := false;
    -- How many streams do not exist and may be created, the ids that they get, and how many got them.
    wanted bigint;
    new_ids bigint[];
    created bigint;
    -- Null where every append is recorded; else the outcome of each append, and how many events of
    -- refused appends come before it.
    outcomes integer[];
    refused bigint[];
    some_are_refused boolean;
    total bigint := cardinality(e_id);
    recording_time timestamptz;
    taken bigint;
begin
    first_position := 0;
    if current_setting('synchronous_commit') = 'off' then
        -- Whatever the server's setting, an append is durable before it is acknowledged and before
        -- readers see it. Until the end of the transaction.
        perform set_config('synchronous_commit', 'on', true);
    end if;

    -- The short way, for one append to one stream without a key. If the stream is not as expected, the
    -- long way says how it is.
    if cardinality(s_key) = 1 and cardinality(k_key) = 0 and total > 0 then
        if s_expected[1] = 0 then
            insert into streams (category, key, version)
            values (s_category[1], s_key[1], s_events[1])
            on conflict do nothing
            returning array[id] into ids;
        elsif s_expected[1] > 0 then
            update streams t set version = t.version + s_events[1]
            where t.category = s_category[1] and t.key = s_key[1]
              and t.version = s_expected[1] and t.state = 0
            returning array[t.id] into ids;
        end if;
        if ids is not null then
            select d.first_position, d.recording_time into first_position, recording_time
            from draw_positions(total, e_recorded[1], e_recorded[cardinality(e_recorded)]) d;
            if total = 1 then
                insert into events (position, stream_id, version, event_id, type, schema_version,
                    recorded_at, occurred_at, payload, metadata)
                values (first_position, ids[1], s_expected[1] + 1, e_id[1], e_type[1], e_schema[1],
                    coalesce(e_recorded[1], recording_time), e_occurred[1], e_payload[1],
                    e_metadata[1]);
            else
                insert into events (position, stream_id, version, event_id, type, schema_version,
                    recorded_at, occurred_at, payload, metadata)
                select append_batch.first_position + e.ord - 1, ids[1], s_expected[1] + e.ord, e.id, e.type, e.schema,
                    coalesce(e.recorded, recording_time), e.occurred, e.payload, e.metadata
                from (
                    select generate_series(1, cardinality(e_id)) as ord, unnest(e_id) as id,
                        unnest(e_type) as type, unnest(e_schema) as schema,
                        unnest(e_occurred) as occurred, unnest(e_recorded) as recorded,
                        unnest(e_payload) as payload, unnest(e_metadata) as metadata
                ) e;
            end if;
            versions := s_expected;
            return;
        end if;
    end if;

    -- 1. The usual way: every stream is where its append expects it to be, so it is moved on at once,
    -- without a look before. Where one is not, or a key is known, all of this is undone, locks too, and the
    -- long way says what there is. Locks are taken as they are there: first of what exists, in the order of
    -- names, and then of what is created, in that order.
    if 0 <> all (s_events) then
        begin
            if 0 <> any (s_expected) then
                with moved as (
                    update streams t set version = t.version + s.events
                    from unnest(s_category, s_key, s_expected, s_events) with ordinality
                        s(category, key, expected, events, ord)
                    where s.expected <> 0 and t.category = s.category and t.key = s.key
                        and t.state = 0 and case s.expected
                            when -1 then true
                            when -2 then t.version > 0
                            else t.version = s.expected end
                    returning t.id, t.version - s.events as before, s.ord
                )
                select array_agg(m.id order by m.ord), array_agg(m.before order by m.ord),
                    array_agg(m.ord order by m.ord)
                into ids, versions, found_at
                from moved m;
            end if;
            if 0 = any (s_expected) then
                with new as materialized (
                    select nextval('streams_id_seq') as id, s.category, s.key, s.events, s.ord
                    from unnest(s_category, s_key, s_expected, s_events) with ordinality
                        s(category, key, expected, events, ord)
                    where s.expected = 0
                ), created as (
                    insert into streams (id, category, key, version) overriding system value
                    select n.id, n.category, n.key, n.events from new n order by n.ord
                    on conflict (category, key) do nothing
                    returning id
                )
                select array_agg(a.id order by a.ord), array_agg(a.before order by a.ord),
                    (select count(*) from new) - (select count(*) from created)
                into ids, versions, wanted
                from (
                    select n.id, 0::bigint as before, n.ord from new n
                    union all
                    select unnest(ids), unnest(versions), unnest(found_at)
                ) a;
            else
                wanted := 0;
            end if;
            is_as_expected := coalesce(wanted = 0 and cardinality(ids) = cardinality(s_key), false);
            if is_as_expected and cardinality(k_key) > 0 then
                is_as_expected := not exists (
                    select from unnest(k_key) k(key) join idempotency i on i.key = k.key);
            end if;
            if not is_as_expected then
                raise exception using errcode = 'AN009';
            end if;
            some_are_refused := false;
            -- None is to be moved on below.
            wanted := cardinality(ids);
        exception when sqlstate 'AN009' then
            -- What was assigned stays, and is assigned anew.
        end;
    end if;

    if not is_as_expected then
        -- The long way. Lock the streams in the order of their names, see where they are, and create
        -- those that are missing. Two batches that share streams wait for each other, and not both for each other: both
        -- first lock what exists, and then create, each in this order.
        loop
            select array_agg(found.id), array_agg(found.version), array_agg(found.state),
                count(*) filter (where found.is_wanted),
                bool_or(found.state <> 0 or case found.expected
                    when -1 then false
                    when -2 then found.version = 0
                    else found.version <> found.expected end)
            into ids, versions, states, wanted, some_are_refused
            from (
                select stream.id, coalesce(stream.version, 0) as version,
                    coalesce(stream.state, 0::smallint) as state,
                    stream.id is null and s.expected in (0, -1) as is_wanted, s.expected
                from unnest(s_category, s_key, s_expected) with ordinality s(category, key, expected, ord)
                left join lateral (
                    select t.id, t.version, t.state from streams t
                    where t.category = s.category and t.key = s.key
                    for no key update
                ) stream on true
                order by s.ord
            ) found;
            exit when wanted = 0;

            select array_agg(s.id order by s.ord) into new_ids
            from (
                select coalesce(s.id, case when s.expected in (0, -1) then nextval('streams_id_seq') end)
                    as id, s.ord
                from unnest(ids, s_expected) with ordinality s(id, expected, ord)
            ) s;
            insert into streams (id, category, key, version) overriding system value
            select s.new_id, s.category, s.key, s.events
            from unnest(new_ids, ids, s_category, s_key, s_events) s(new_id, id, category, key, events)
            where s.id is null and s.new_id is not null
            on conflict (category, key) do nothing;
            get diagnostics created = row_count;
            if created = wanted then
                ids := new_ids;
                exit;
            end if;
            -- Another transaction created one meanwhile. Look again; ours have no events yet.
            update streams t set version = 0
            from unnest(new_ids, ids) s(new_id, id)
            where s.id is null and t.id = s.new_id;
        end loop;

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

        -- 2. Decide on each append. A known key comes first: the append has happened. A stream that is
        -- not live comes before a conflict: no version would help.
        if not some_are_refused and cardinality(k_key) > 0 then
            some_are_refused := exists (
                select from unnest(k_key) k(key) join idempotency i on i.key = k.key);
        end if;
        if some_are_refused then
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

            select coalesce(sum(a.events) filter (where outcomes[a.append] = 0), 0),
                array_agg(a.refused order by a.append)
            into total, refused
            from (
                select s.append, sum(s.events) as events, coalesce(sum(sum(s.events))
                    filter (where outcomes[s.append] <> 0)
                    over (order by s.append rows between unbounded preceding and 1 preceding), 0)
                    as refused
                from unnest(s_append, s_events) s(append, events)
                group by s.append
            ) a;
        end if;
    end if;

    if total > 0 then
        -- 3. Register, and draw.
        select d.first_position, d.recording_time into first_position, recording_time
        from draw_positions(total, e_recorded[1], e_recorded[cardinality(e_recorded)]) d;

        -- 4. Record. Set-returning functions of a select list go side by side.
        insert into events (position, stream_id, version, event_id, type, schema_version,
            recorded_at, occurred_at, payload, metadata)
        select append_batch.first_position + e.ord - 1 - coalesce(refused[s_append[e.stream]], 0), ids[e.stream],
            versions[e.stream] + e.number, e.id, e.type, e.schema,
            coalesce(e.recorded, recording_time), e.occurred, e.payload, e.metadata
        from (
            select generate_series(1, cardinality(e_id)) as ord, unnest(e_stream) as stream,
                unnest(e_number) as number, unnest(e_id) as id, unnest(e_type) as type,
                unnest(e_schema) as schema, unnest(e_occurred) as occurred,
                unnest(e_recorded) as recorded, unnest(e_payload) as payload,
                unnest(e_metadata) as metadata
        ) e
        where outcomes is null or outcomes[s_append[e.stream]] = 0;
    end if;

    -- The streams that existed, and those that were created for an append that is refused.
    if some_are_refused or wanted < cardinality(ids) then
        update streams t set version = s.version
        from (
            select s.id, s.before + case when outcomes is null or outcomes[s.append] = 0
                then s.events else 0 end as version
            from unnest(ids, versions, s_append, s_events) s(id, before, append, events)
            where s.events > 0
        ) s
        where t.id = s.id and t.version <> s.version;
    end if;

    if cardinality(k_key) > 0 then
        insert into idempotency (key, fingerprint, version, position, events)
        select k.key, k.fingerprint, versions[k.stream] + k.number,
            case when k.last = 0 then 0
                else append_batch.first_position + k.last - 1 - coalesce(refused[k.append], 0) end,
            k.events
        from unnest(k_append, k_stream, k_key, k_fingerprint, k_number, k_last, k_events)
            k(append, stream, key, fingerprint, number, last, events)
        where outcomes is null or outcomes[k.append] = 0
        order by k.key
        on conflict do nothing;
        get diagnostics taken = row_count;
        -- Another transaction recorded a key after it was looked up above. Undo all; the caller
        -- appends each alone, and finds the key.
        if taken <> (
            select count(*) from unnest(k_append) a where outcomes is null or outcomes[a] = 0
        ) then
            raise exception 'an idempotency key was taken meanwhile' using errcode = 'AN002';
        end if;
    end if;

    if outcomes is not null then
        stream_outcomes := array(
            select case outcomes[s.append] when 3 then 3 + s.state else outcomes[s.append] end
            from unnest(s_append, states) with ordinality s(append, state, ord)
            order by s.ord);
    end if;
end $$;
