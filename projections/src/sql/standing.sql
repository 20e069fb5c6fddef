-- What the answers of a read model rest on: how far it has come, and from where on its history is kept; what is another
-- whenever its rows are; and what is another when its past is. No row where that cannot be told: it is not built, or it
-- runs inline, where rows change with appends and no checkpoint moves.
with c as (
    select count(*) as found, min(position) as reached,
        -- Whoever changes rows writes the row of the checkpoint, also where it stays where it is.
        string_agg(name || ' ' || position || ' ' || xmin::text, ', ' order by name) as moved
    from {schema}.checkpoints where name = any ({schema}.checkpoints_of($1)))
select c.reached, coalesce(p.kept_from, 0), c.moved,
    concat_ws(' ', to_regclass($2)::oid, p.kept_from, p.changed_at)
from c left join {schema}.projections p on p.name = $1
where c.found = cardinality({schema}.checkpoints_of($1)) and to_regclass($2) is not null
  and not exists (select from {schema}.inline_projections i where i.name = $1)
