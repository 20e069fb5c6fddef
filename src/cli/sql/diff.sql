-- What differs between the positions $2 and $3: in all rows, or in that with the key in $1.
select
    {name},
    case when a.valid_from is not null then {row:a} end,
    case when b.valid_from is not null then {row:b} end
from {before} a full join {after} b using ({keys})
where $1::text[] is not null and a.valid_from is distinct from b.valid_from
order by {keys}
