-- The arguments are evaluated before the call, so the lock timeout holds in it; it ends with the
-- transaction.
select stream_outcomes, versions, first_position
from {schema}.append_batch(
    case when set_config('lock_timeout', $22::text, true) is not null then $1::integer[] end,
    $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21)
