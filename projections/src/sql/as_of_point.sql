-- Rows as of a position, and whether there are any, if the read model has come to it and keeps its history
-- from there on. No row where it does not, or where it runs inline.
select r.*
from (
    select true as known
    from {schema}.projections p
    where p.name = {name}
      and not exists (select from {schema}.inline_projections i where i.name = p.name)
      and p.kept_from <= {at}
      and {has_come_to}
) k
left join (select found.*, true as is_there from ({rows}) found) r on true
