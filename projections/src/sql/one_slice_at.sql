p.slices = 1
and exists (select from {schema}.checkpoints c where c.name = p.name and c.position >= {at})
