-- A rebuild has replaced the tables of a projection: what was known of the old ones is kept beside them,
-- and what is known of the new ones takes its place. Whoever works on the projection is fenced, since the
-- epoch is above that of its lease.
insert into {schema}.replaced_projections as r (name, slices, version, kept_from, positions)
select '{live}', coalesce(p.slices, 1), coalesce(p.version, 1), coalesce(p.kept_from, 0),
    array(select c.position from {schema}.checkpoints c
          where c.name = any ({schema}.checkpoints_of('{live}')) order by length(c.name), c.name)
from (select) one left join {schema}.projections p on p.name = '{live}'
on conflict (name) do update
set slices = excluded.slices, version = excluded.version, kept_from = excluded.kept_from,
    positions = excluded.positions, replaced_at = clock_timestamp();

delete from {schema}.checkpoints where name = any ({schema}.checkpoints_of('{live}'));
insert into {schema}.projections as p (name, slices, version)
select '{live}', n.slices, n.version from {schema}.projections n where n.name = '{next}'
on conflict (name) do update
set slices = excluded.slices, version = excluded.version, kept_from = 0,
    changed_at = clock_timestamp();
insert into {schema}.checkpoints (name, position, epoch)
select c.name, {position}, coalesce((select l.epoch from {schema}.leases l where l.name = c.name), 0) + 1
from unnest({schema}.checkpoints_of('{live}')) c (name);

delete from {schema}.parked_streams where projection = '{live}';
update {schema}.parked_streams set projection = '{live}' where projection = '{next}';
delete from {schema}.projections where name = '{next}';
