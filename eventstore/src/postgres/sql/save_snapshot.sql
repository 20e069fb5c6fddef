-- Keeps a snapshot in place of those of another shape, and of the latest $8, if that is not null.
with stream as (
    select id from {schema}.streams where category = $1 and key = $2
), outdated as (
    delete from {schema}.snapshots old using stream
    where old.stream_id = stream.id and old.name = $3 and old.version <> $5
        and (old.fingerprint <> $4 or $8 <= ($5 > old.version)::integer + (
            select count(*) from {schema}.snapshots newer
            where newer.stream_id = stream.id and newer.name = $3 and newer.fingerprint = $4
                and newer.version > old.version and newer.version <> $5
        ))
)
insert into {schema}.snapshots (stream_id, name, fingerprint, version, position, state)
select stream.id, $3, $4, $5, $6, $7 from stream
on conflict (stream_id, name, version) do update
set fingerprint = excluded.fingerprint, position = excluded.position, state = excluded.state,
    taken_at = clock_timestamp()
