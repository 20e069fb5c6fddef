
-- What is known of the projection, and its checkpoints. They wait for nobody who moves one.
insert into {schema}.projections (name, slices, version)
select '{name}', {slices}, {version}
where not exists (select from {schema}.projections where name = '{name}')
on conflict do nothing;

insert into {schema}.checkpoints (name, position)
select n.name, 0 from unnest({schema}.checkpoints_of('{name}')) n (name)
where not exists (select from {schema}.checkpoints c where c.name = n.name)
on conflict do nothing;
