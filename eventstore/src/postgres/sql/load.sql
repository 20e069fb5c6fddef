-- What folding some streams needs: of each stream wanted, the latest snapshot of the kind in question
-- that lies in the range, and the first $8 events after it or, without one, after the version given.
-- The first column is the index of the stream, from 1. A snapshot's row has no type and comes first.
-- A stream that is not live has a row more, without a type and without content, whose version is its
-- state; one that is deleted, or archived and not wanted then ($9), has no other row.
-- Streams are looked up one by one (`offset 0`): a batch is small and the tables are large.
select wanted.index, part.version, part.position, part.type, part.schema_version, part.content
from unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::text[],
        $7::bytea[], $9::boolean[]) with ordinality
    wanted(category, key, after, up_to_version, up_to_position, snapshot, fingerprint, archived, index)
cross join lateral (
    select s.id, s.state, s.state = 0 or s.state = 2 and wanted.archived as is_read
    from {schema}.streams s
    where s.category = wanted.category and s.key = wanted.key offset 0
) stream
left join lateral (
    select n.version, n.position, n.state from {schema}.snapshots n
    where n.stream_id = stream.id and n.name = wanted.snapshot
        and n.fingerprint = wanted.fingerprint and n.version > wanted.after
        and n.version <= wanted.up_to_version and n.position <= wanted.up_to_position
    order by n.version desc
    limit 1
) latest on wanted.snapshot is not null and stream.is_read
cross join lateral (
    select stream.state::bigint as version, 0::bigint as position, null::text as type,
        null::integer as schema_version, null::json as content
    where stream.state <> 0
    union all
    select latest.version, latest.position, null, null, latest.state
    where latest.version is not null
    union all (
        select e.version, e.position, e.type, e.schema_version, e.payload
        from {schema}.events e
        where stream.state = 0
            and e.stream_id = stream.id and e.version > greatest(wanted.after, latest.version)
            and e.version <= wanted.up_to_version and e.position <= wanted.up_to_position
        order by e.version
        limit $8
    )
    union all (
        select e.version, e.position, e.type, e.schema_version, e.payload
        from {schema}.archived_events e
        where stream.state = 2 and wanted.archived
            and e.stream_id = stream.id and e.version > greatest(wanted.after, latest.version)
            and e.version <= wanted.up_to_version and e.position <= wanted.up_to_position
        order by e.version
        limit $8
    )
) part
