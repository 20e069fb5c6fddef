-- Rows, and whether there are any, if what was looked at before this statement holds in it too: history may have
-- been forgotten in between, or the read model rolled back. No row where it does not.
select r.*
from (
    select true as known
    from (select) one left join {schema}.projections p on p.name = '{name}'
    where ({at}::bigint is null or {at} >= coalesce(p.kept_from, 0))
      and ({needed}::bigint is null
        or exists (select from {schema}.inline_projections i where i.name = '{name}')
        or {needed} <= case coalesce(p.slices, 1)
            when 1 then (select c.position from {schema}.checkpoints c where c.name = '{name}')
            else (
                select case when count(*) = p.slices then min(c.position) end
                from {schema}.checkpoints c
                where c.name = any (array(select p.name || '/' || n from generate_series(0, p.slices - 1) n)))
        end)
) k
left join (select found.*, true as is_there from ({rows}) found) r on true
