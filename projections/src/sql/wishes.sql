-- Whether a projection is paused, whether what it acts on is broken, and which of its parked streams somebody wants to go on.
select p.paused, s.asked, s.category, s.key, p.broken is not null
from (select) one
left join {schema}.projections p on p.name = $1
left join {schema}.parked_streams s on s.projection = $1 and s.asked is not null
order by s.position
