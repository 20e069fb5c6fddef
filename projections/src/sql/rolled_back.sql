-- The tables that were replaced last are in use again, and go on from where they were.
create temporary table annals_back on commit drop as
select r.slices, r.version, r.kept_from, r.positions
from {schema}.replaced_projections r where r.name = '{live}';

insert into {schema}.replaced_projections as r (name, slices, version, kept_from, positions)
select '{live}', coalesce(p.slices, 1), coalesce(p.version, 1), coalesce(p.kept_from, 0),
    array(select c.position from {schema}.checkpoints c
          where c.name = any ({schema}.checkpoints_of('{live}')) order by length(c.name), c.name)
from (select) one left join {schema}.projections p on p.name = '{live}'
on conflict (name) do update
set slices = excluded.slices, version = excluded.version, kept_from = excluded.kept_from,
    positions = excluded.positions, replaced_at = clock_timestamp();

delete from {schema}.checkpoints where name = any ({schema}.checkpoints_of('{live}'));
insert into {schema}.projections as p (name, slices, version, kept_from)
select '{live}', b.slices, b.version, b.kept_from from annals_back b
on conflict (name) do update
set slices = excluded.slices, version = excluded.version, kept_from = excluded.kept_from,
    changed_at = clock_timestamp();
insert into {schema}.checkpoints (name, position, epoch)
select c.name, b.positions[c.n],
    coalesce((select l.epoch from {schema}.leases l where l.name = c.name), 0) + 1
from annals_back b, unnest({schema}.checkpoints_of('{live}')) with ordinality c (name, n);

-- What is parked is of the other rows.
delete from {schema}.parked_streams where projection = '{live}';
