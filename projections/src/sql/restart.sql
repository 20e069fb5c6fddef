-- A rebuild begins anew: nothing is known of its tables, which are empty.
delete from {schema}.parked_streams where projection = '{next}';
insert into {schema}.projections (name, slices, version, unfinished)
values ('{next}', {slices}, {version}, true)
on conflict (name) do update
set slices = excluded.slices, version = excluded.version, kept_from = 0, unfinished = true;
update {schema}.checkpoints set position = 0 where name = '{next}';
