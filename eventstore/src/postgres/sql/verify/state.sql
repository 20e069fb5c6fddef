-- A snapshot, if it is still there.
select position, state from {schema}.snapshots
where stream_id = $1 and name = $2 and version = $3 and fingerprint = $4
