-- The events of a page, each with the name of its stream. `offset 0` keeps the planner from joining all streams to
-- them.
select e.*, s.category, s.key
from ({page}) e
left join lateral (
    select s.category, s.key from {schema}.streams s where s.id = e.stream_id offset 0
) s on true
order by e.position
