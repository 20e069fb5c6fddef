-- The slices of all projections, each with what is known of its projection.
select
    coalesce(p.name, c.name),
    c.position,
    case when l.expires_at > clock_timestamp() then l.owner end,
    c.epoch,
    c.updated_at,
    p.paused,
    exists (select from {schema}.inline_projections i where i.name = c.name),
    coalesce(p.version, 1),
    coalesce(p.kept_from, 0),
    (select count(*) from {schema}.parked_streams s where s.projection = coalesce(p.name, c.name)),
    coalesce(p.kind, 'rows'),
    p.broken,
    p.broken_until,
    c.fed_by,
    c.fed_by_reason
from {schema}.checkpoints c
left join {schema}.projections p on c.name = any ({schema}.checkpoints_of(p.name))
left join {schema}.leases l on l.name = c.name
where starts_with(c.name, $1)
order by 1, length(c.name), c.name
