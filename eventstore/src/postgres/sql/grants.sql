-- Gives each role what it needs in the store's schema, and takes away all else. For the owner or an
-- administrator to run, after the schema was created and again after each migration.
begin;

revoke all on schema {schema} from public, {writer}, {reader}, {projector};
revoke all on all tables in schema {schema} from public, {writer}, {reader}, {projector};
revoke all on all sequences in schema {schema} from public, {writer}, {reader}, {projector};
revoke all on all routines in schema {schema} from public, {writer}, {reader}, {projector};

-- All: to start on a schema that is up to date, and to read the log, now and as of a time.
grant usage on schema {schema} to {writer}, {reader}, {projector};
grant select on {schema}.migrations, {schema}.store to {writer}, {reader}, {projector};
grant select on {schema}.streams, {schema}.events, {schema}.archived_events
    to {writer}, {reader}, {projector};
grant select on sequence {schema}.positions to {writer}, {reader}, {projector};
grant execute on function {schema}.last_position, {schema}.lowest_in_flight, {schema}.safe_position
    to {writer}, {reader}, {projector};
grant select on {schema}.snapshots, {schema}.inline_projections to {writer}, {reader}, {projector};
grant execute on function {schema}.load_streams, {schema}.reached, {schema}.checkpoints_of,
    {schema}.check_moment to {writer}, {reader}, {projector};
grant select on {schema}.projections, {schema}.foreign_log to {writer}, {reader}, {projector};
grant execute on function {schema}.cut, {schema}.time_passed, {schema}.try_position_at,
    {schema}.position_at to {writer}, {reader}, {projector};

-- The writer: to append, which this function does with its owner's rights, and to tell whether a command
-- was executed before.
grant execute on function {schema}.append_batch to {writer};
grant select on {schema}.idempotency to {writer};
-- To end the life of a stream and to bring it back, and to forget idempotency keys.
grant execute on function {schema}.delete_stream, {schema}.archive_stream, {schema}.restore_stream,
    {schema}.remove_idempotency_keys to {writer};
-- To keep snapshots, and to run inline projections that the owner has registered. What these write to
-- is the program's: their tables and checkpoints need grants of their own.
grant insert, update, delete on {schema}.snapshots to {writer};
grant execute on function {schema}.enter_inline to {writer};

-- The reader: to tell how far the read models and the sagas have come, and what holds them up.
grant select on {schema}.checkpoints, {schema}.leases, {schema}.parked_streams, {schema}.kafka_offsets,
    {schema}.waiting_events, {schema}.sagas to {reader};

-- The projector: to hold leases, and to move checkpoints.
grant select, insert, update on {schema}.leases to {projector};
grant select, insert, update, delete on {schema}.checkpoints, {schema}.projections,
    {schema}.parked_streams, {schema}.replaced_projections, {schema}.kafka_offsets, {schema}.waiting_events,
    {schema}.foreign_log to {projector};
-- And to see to sagas. Who runs them appends as well, and so is a writer, too.
grant select, insert, update on {schema}.sagas to {projector};
-- And to run by a worker what ran inline before.
grant execute on function {schema}.forget_inline to {projector};

-- Nobody but the owner, through the functions above:
--   {schema}.register_inline, {schema}.refuse_bypass, {schema}.refuse_loss, {schema}.await_archiving,
--   {schema}.refuse_readers_behind, {schema}.lock_stream,
--   {schema}.draw_positions, {schema}.refuse_change, {schema}.recorded_micros, {schema}.recovered,
--   {schema}.streams_id_seq

commit;
