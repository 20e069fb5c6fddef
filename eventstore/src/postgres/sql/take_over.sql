-- Takes over the checkpoint $1 in the epoch $2, without waiting for a lock: its position if that is done, and
-- whether it is of a later epoch. No row if there is no such checkpoint.
with free as materialized (
    select epoch from {schema}.checkpoints where name = $1 for update skip locked
), taken as (
    update {schema}.checkpoints set epoch = $2
    where name = $1 and epoch <= $2 and exists (select from free)
    returning position
)
select (select position from taken), c.epoch > $2
from {schema}.checkpoints c where c.name = $1
