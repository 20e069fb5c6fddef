-- Begins a rebuild anew: empty tables beside those in use.
do $$ begin
    if to_regnamespace('{next}') is null then create schema {next}; end if;
end $$;
{drop};
{tables}
delete from {schema}.parked_streams where projection = '{name}';
insert into {schema}.projections (name, slices, version) values ('{name}', {slices}, {version})
on conflict (name) do update set slices = excluded.slices, version = excluded.version;
update {schema}.checkpoints set position = 0 where name = '{name}';
