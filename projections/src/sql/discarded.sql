-- Nothing is known any more of tables that were built or replaced. Without a checkpoint, they keep no
-- stream from being archived.
delete from {schema}.checkpoints where name = '{next}';
delete from {schema}.projections where name = '{next}';
delete from {schema}.replaced_projections where name = '{live}';
delete from {schema}.parked_streams where projection in ('{next}', '{replaced}');
