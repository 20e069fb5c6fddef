-- Tables that were replaced are the new ones again, before they take the place of those in use. What was
-- built meanwhile and not swapped in is gone.
delete from {schema}.parked_streams where projection = '{next}';
update {schema}.parked_streams set projection = '{next}' where projection = '{replaced}';
insert into {schema}.projections (name, slices, version, kept_from)
select '{next}', r.slices, r.version, r.kept_from
from {schema}.replaced_projections r where r.name = '{live}'
on conflict (name) do update
set slices = excluded.slices, version = excluded.version, kept_from = excluded.kept_from;
