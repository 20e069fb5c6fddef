-- States of aggregates at a version: copies that can be thrown away at any time. Several of a stream
-- stay, so that a load as of a moment of the past has one to start from.
create table {schema}.snapshots (
    stream_id bigint not null,
    -- Which aggregate's state, of those that fold this stream.
    name text not null,
    version bigint not null,
    position bigint not null,
    -- Stands for the shape of the state. Code of another shape ignores it.
    fingerprint bytea not null,
    state json not null,
    taken_at timestamptz not null default clock_timestamp(),
    primary key (stream_id, name, version)
);
