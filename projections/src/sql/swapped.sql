-- Other tables have taken the place of those of a projection: what was known of the old ones is kept beside
-- them, and what is known of the new ones takes its place.
delete from {schema}.replaced_projections where name = '{live}';
delete from {schema}.parked_streams where projection = '{replaced}';
insert into {schema}.replaced_projections (name, slices, version, kept_from, positions)
select '{live}', coalesce(p.slices, 1), coalesce(p.version, 1), coalesce(p.kept_from, 0),
    array(select c.position from {schema}.checkpoints c
          where c.name = any ({schema}.checkpoints_of('{live}')) order by length(c.name), c.name)
from (select) one left join {schema}.projections p on p.name = '{live}'
where to_regclass('{old}') is not null;
update {schema}.parked_streams set projection = '{replaced}' where projection = '{live}';

delete from {schema}.checkpoints where name = any ({schema}.checkpoints_of('{live}'));
insert into {schema}.projections (name, slices, version, kept_from)
select '{live}', n.slices, n.version, n.kept_from from {schema}.projections n where n.name = '{next}'
on conflict (name) do update
set slices = excluded.slices, version = excluded.version, kept_from = excluded.kept_from,
    changed_at = clock_timestamp();
-- Whoever works on the projection is fenced, since the epoch is above that of its lease.
insert into {schema}.checkpoints (name, position, epoch)
select c.name, ('{positions}'::bigint[])[c.n],
    coalesce((select l.epoch from {schema}.leases l where l.name = c.name), 0) + 1
from unnest({schema}.checkpoints_of('{live}')) with ordinality c (name, n);
update {schema}.parked_streams set projection = '{live}' where projection = '{next}';

delete from {schema}.projections where name = '{next}';
delete from {schema}.checkpoints where name = '{next}';
