-- Takes a lease that is free or over, or says for how many seconds it is held, and whether it was given back. One
-- whose row a transaction has at this moment is not waited for: the wait would keep a connection that others need to
-- renew theirs. The lock is the one that guards exclude and renewals do not.
with free as (
    select name, expires_at from {schema}.leases where name = $1 and expires_at < clock_timestamp()
    for update skip locked),
taken as (
    update {schema}.leases l
    set owner = $2, epoch = l.epoch + 1, expires_at = clock_timestamp() + $3 * interval '1 millisecond'
    from free where l.name = free.name
    returning l.epoch),
begun as (
    insert into {schema}.leases (name, owner, epoch, expires_at)
    select $1::text, $2::text, 1, clock_timestamp() + $3 * interval '1 millisecond'
    where not exists (select from {schema}.leases where name = $1)
    on conflict (name) do nothing
    returning epoch)
select
    (select epoch from taken union all select epoch from begun),
    (select case when expires_at > clock_timestamp()
         then extract(epoch from expires_at - clock_timestamp())::float8 end
     from {schema}.leases where name = $1),
    -- It was not given back: its holder has let its time go by.
    exists (select from free where expires_at > '-infinity'),
    coalesce((select expires_at = '-infinity' from {schema}.leases where name = $1), false)
