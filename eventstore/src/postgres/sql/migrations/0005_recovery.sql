-- What readers and callers have been told stays true when the server crashes, when a standby takes its
-- place, and when its clock is set back.

-- An append that is rolled back leaves the positions it drew behind, as a gap that readers pass. No commit
-- has made that durable: after a crash the counter may stand before the gap, and events could be recorded
-- at positions that a reader outside of this database has passed. The same holds of what an asynchronous
-- standby had not received when it was promoted. Therefore this mark: an unlogged sequence, which recovery
-- from a crash, a promotion and the restore of a base backup all set back to "never called".
-- draw_positions then leaves a gap of its own.
create unlogged sequence {schema}.recovered cache 1;
select setval('{schema}.recovered', 1);

-- Whether a moment is over, by the database's clock: if so, nothing is recorded at or before it from now on,
-- also if the clock is set back. Whoever may ask as of a time may call this; it moves time up to the clock
-- and not past it. (A read-only transaction can set no counter, and has the clock's word only.)
create function {schema}.time_passed(moment timestamptz) returns boolean
language plpgsql volatile security definer
set search_path = {schema}, pg_catalog, pg_temp
as $$
declare
    present timestamptz := clock_timestamp();
    micros bigint := (extract(epoch from present) * 1000000)::bigint;
begin
    if (select case when is_called
            then timestamptz 'epoch' + last_value * interval '1 microsecond' > moment
            else false end from recorded_micros)
    then
        return true;
    elsif moment >= present then
        return false;
    elsif current_setting('transaction_read_only') = 'on' then
        return true;
    end if;
    begin
        -- As in draw_positions.
        perform pg_advisory_xact_lock((select id from store), 1);
        if (select not is_called or last_value < micros from recorded_micros) then
            perform setval('recorded_micros', micros);
        end if;
        raise exception using errcode = 'AN009';
    exception when sqlstate 'AN009' then
    end;
    return true;
end $$;

-- As in 0001, and
-- - a clock that is set back after the answer does not change it;
-- - a standby, which may lack events that are recorded, refuses to answer.
create or replace function {schema}.try_position_at(
    moment timestamptz, clock timestamptz, inout asked_when bigint, out at_position bigint
) language plpgsql volatile as $$
declare
    found record;
    settled boolean;
begin
    if pg_is_in_recovery() then
        raise exception 'the past can only be asked for on the primary, not on a standby'
            using errcode = 'AN007';
    end if;
    select * into found from {schema}.cut(moment);
    if found.first_after is not null then
        -- Appends in flight above the first later event record later times.
        settled := {schema}.safe_position() >= found.first_after - 1;
    elsif asked_when is null
        and not (case when clock is null then {schema}.time_passed(moment) else moment < clock end)
    then
        raise exception 'cannot answer as of %: it is in the future', moment
            using errcode = 'AN003', detail =
                (extract(epoch from coalesce(clock, clock_timestamp())) * 1000000)::bigint::text;
    else
        -- An append that registers from now on takes a later time; wait for those before.
        asked_when := coalesce(asked_when, {schema}.last_position());
        settled := coalesce({schema}.lowest_in_flight() > asked_when, true);
    end if;
    if settled then
        -- Again: what was in flight above may be recorded now.
        select last_before into at_position from {schema}.cut(moment);
    end if;
end $$;
