-- Sagas: what of each is due. Their streams say what they are; this is written in the same transactions, and can be
-- made anew from them. {schema} is replaced by the quoted name of the store's schema.
alter table {schema}.projections drop constraint projections_kind_check;
alter table {schema}.projections add constraint projections_kind_check
    check (kind in ('rows', 'sql', 'reactor', 'saga'));

create table {schema}.sagas (
    -- The category of its stream, and its key.
    saga text not null,
    key text not null,
    status text not null check (status in
        ('running', 'compensating', 'stuck', 'completed', 'compensated', 'aborted')),
    -- The step that it is at, and why it compensates, is stuck or was aborted.
    step text,
    reason text,
    -- How often the call that is pending was begun.
    attempts integer not null default 0,
    -- When the call is to be made; while a worker makes it, when another one may take over from that one.
    call_due timestamptz,
    claimed_by uuid,
    -- When the next timer goes off, or somebody has asked for something.
    look_at timestamptz,
    asked text check (asked in ('retry', 'skip', 'compensate', 'abort')),
    asked_why text,
    begun_at timestamptz not null default clock_timestamp(),
    changed_at timestamptz not null default clock_timestamp(),
    primary key (saga, key)
);

create index sagas_calls on {schema}.sagas (saga, call_due) where call_due is not null;
create index sagas_looks on {schema}.sagas (saga, look_at) where look_at is not null;
create index sagas_live on {schema}.sagas (saga, begun_at)
    where status in ('running', 'compensating', 'stuck');
