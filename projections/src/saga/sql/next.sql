select
    extract(epoch from (
        select min(look_at) from {schema}.sagas where saga = $1 and look_at is not null)
        - clock_timestamp())::float8,
    extract(epoch from (
        select min(call_due) from {schema}.sagas
        where saga = $1 and call_due is not null
          and not exists (select from {schema}.projections where name = $2 and paused is not null))
        - clock_timestamp())::float8
