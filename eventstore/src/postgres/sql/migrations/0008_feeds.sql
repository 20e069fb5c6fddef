-- Projections that Kafka feeds. {schema} is replaced by the quoted name of the store's schema.

-- What feeds the reader of a checkpoint, and why it is not Kafka if it is meant to be.
alter table {schema}.checkpoints
    add column fed_by text not null default 'store' check (fed_by in ('store', 'kafka', 'replay')),
    add column fed_by_reason text;

-- Where in Kafka the reader of a checkpoint goes on. All records of a partition before an offset have positions at
-- or below the position that stands beside it. So an offset is of use to a checkpoint at that position or
-- behind it, whoever wrote it when.
create table {schema}.kafka_offsets (
    checkpoint text not null,
    topic text not null,
    partition integer not null,
    next_offset bigint not null,
    position bigint not null,
    primary key (checkpoint, topic, partition)
) with (fillfactor = 50);

-- Events of parked streams, kept where no store of them can be read again.
create table {schema}.waiting_events (
    projection text not null,
    category text not null,
    key text not null,
    position bigint not null,
    version bigint not null,
    event_id uuid not null,
    type text not null,
    schema_version integer not null,
    recorded_at timestamptz not null,
    occurred_at timestamptz,
    payload json not null,
    metadata json,
    primary key (projection, category, key, position)
);

-- Where in Kafka the record of the event that failed is, while it is still to be written among the dead letters.
alter table {schema}.parked_streams
    add column record_topic text,
    add column record_partition integer,
    add column record_offset bigint;

-- Whose log the positions here are of, if it is not this store's own.
create table {schema}.foreign_log (
    single boolean primary key default true check (single),
    context text not null
);

-- As in 0003. Of a log that is elsewhere, no times are known.
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
        if exists (select from {schema}.foreign_log) then
            raise exception 'cannot tell the position as of %: the log is in another database', moment
                using errcode = 'AN014', hint = 'Ask as of a position.';
        end if;
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
