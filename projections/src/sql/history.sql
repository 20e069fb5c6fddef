-- Every version of every row, with the positions from which and up to before which it held.
create table if not exists {history} (
    {columns},
    valid_from bigint not null,
    valid_to bigint not null,
    primary key ({keys}, valid_from)
);
create unique index if not exists {index} on {history} ({keys}) where valid_to = {forever};

-- The table as of a position. One that the projection has not come to is an error, not a guess.
create or replace function {as_of}(bigint) returns setof {table} language plpgsql volatile as $$
declare
    annals_reached bigint := coalesce({store}.reached('{checkpoint}'), 0);
begin
    if $1 is null then
        raise exception 'a moment is needed, not null' using errcode = 'null_value_not_allowed';
    elsif $1 > annals_reached then
        raise exception '{label} has come to position %, not to % yet', annals_reached, $1
            using errcode = 'AN004', hint = 'Is its worker running?';
    end if;
    return query select {names} from {history} h where h.valid_from <= $1 and h.valid_to > $1;
end $$;

-- The table as of a time. A time that has not come yet is an error.
create or replace function {as_of}(timestamptz) returns setof {table} language plpgsql volatile as $$
begin
    if $1 is null then
        raise exception 'a moment is needed, not null' using errcode = 'null_value_not_allowed';
    end if;
    return query select * from {as_of}({store}.position_at($1));
end $$;

-- A time in quotes would fit both of the above; PostgreSQL prefers text for it.
create or replace function {as_of}(text) returns setof {table} language plpgsql volatile as $$
begin
    return query select * from {as_of}($1::timestamptz);
end $$;
