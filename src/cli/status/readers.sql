-- The readers of the log that are no projections: where they are, and who has their lease.
select c.name, c.position, case when l.expires_at > clock_timestamp() then l.owner end
from {schema}.checkpoints c
left join {schema}.leases l on l.name = c.name
where not starts_with(c.name, 'projection:')
order by c.name
