-- Rows as of a position, and whether there are any, if the read model has come to it and keeps its history
-- from there on. No row where it does not, or where it runs inline.
select r.*
from (
    select true as known
    from {schema}.projections p
    where p.name = {name}
      and not exists (select from {schema}.inline_projections i where i.name = p.name)
      and p.kept_from <= {at}
      and {at} <= case p.slices
          when 1 then (select c.position from {schema}.checkpoints c where c.name = p.name)
          else (
              select case when count(*) = p.slices then min(c.position) end
              from {schema}.checkpoints c
              where c.name = any (array(select p.name || '/' || n from generate_series(0, p.slices - 1) n)))
      end
) k
left join (select found.*, true as is_there from ({rows}) found) r on true
