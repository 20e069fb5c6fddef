-- What is known of a projection: how far it has come, which code made its rows, in how many slices, and what
-- kind it is.
select
    (select min(position) from {schema}.checkpoints where name = any ({schema}.checkpoints_of($1))),
    p.version,
    p.slices,
    p.kind
from (select) one left join {schema}.projections p on p.name = $1
