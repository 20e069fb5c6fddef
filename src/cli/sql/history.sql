-- All that the row with the key in $1 ever was, with the times of the positions from which and up to
-- before which.
select {row:v}, v.valid_from, began.recorded_at, v.valid_to, ended.recorded_at
from {versions}() v
left join lateral (
    select e.recorded_at from {schema}.events e where e.position = v.valid_from
    union all
    select e.recorded_at from {schema}.archived_events e where e.position = v.valid_from
) began on true
left join lateral (
    select e.recorded_at from {schema}.events e where e.position = v.valid_to
    union all
    select e.recorded_at from {schema}.archived_events e where e.position = v.valid_to
) ended on true
where {key}
order by v.valid_from
