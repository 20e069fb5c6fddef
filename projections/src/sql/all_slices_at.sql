{at} <= (
    select case when count(*) = p.slices then min(c.position) end
    from {schema}.checkpoints c
    where c.name = any (array(select p.name || '/' || n from generate_series(0, p.slices - 1) n))
)
