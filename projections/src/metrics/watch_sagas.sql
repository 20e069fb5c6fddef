-- Of each kind of saga: how many that have not ended there are in each status, and for how long the oldest timer, and the
-- oldest call, have been due. Of a call that somebody makes, call_due is when another one may take over.
select
    substr(p.name, length($1) + 1),
    count(*) filter (where s.status = 'running'),
    count(*) filter (where s.status = 'compensating'),
    count(*) filter (where s.status = 'stuck'),
    extract(epoch from clock_timestamp() - min(s.look_at))::float8,
    extract(epoch from clock_timestamp() - min(s.call_due))::float8
from {schema}.projections p
left join {schema}.sagas s on s.saga = substr(p.name, length($1) + 1)
    and s.status in ('running', 'compensating', 'stuck')
where p.kind = 'saga'
group by p.name
