-- The table as of a position. One that the projection has not come to is an error, not a guess.
--
-- Its columns are named here, and not as those of the table: so it stays the same function when a rebuild puts
-- another table in the place of this one, and whoever calls it at that moment finds it.
create or replace function {as_of}(bigint)
returns table ({types}, valid_from bigint) language plpgsql volatile as $$
#variable_conflict use_column
begin
    perform {store}.check_moment('{checkpoint}', '{label}', $1);
    return query {rows_as_of};
    -- Once more: it may have been forgotten before the rows were read.
    perform {store}.check_moment('{checkpoint}', '{label}', $1);
end $$;

-- The table as of a time. A time that has not come yet is an error.
create or replace function {as_of}(timestamptz)
returns table ({types}, valid_from bigint) language plpgsql volatile as $$
#variable_conflict use_column
begin
    if $1 is null then
        raise exception 'a moment is needed, not null' using errcode = 'null_value_not_allowed';
    end if;
    return query select * from {as_of}({store}.position_at($1));
end $$;

-- A time in quotes would fit both of the above; PostgreSQL prefers text for it.
create or replace function {as_of}(text)
returns table ({types}, valid_from bigint) language plpgsql volatile as $$
#variable_conflict use_column
begin
    return query select * from {as_of}($1::timestamptz);
end $$;

-- What differs between two moments: a row that came, went or became another.
create or replace function {changes}(bigint, bigint)
returns table (change text, before {table}, after {table}) language plpgsql volatile as $$
#variable_conflict use_column
begin
    return query
    select
        case when a.valid_from is null then 'added' when b.valid_from is null then 'removed'
            else 'changed' end,
        case when a.valid_from is not null then row({a})::{table} end,
        case when b.valid_from is not null then row({b})::{table} end
    from {as_of}($1) a full join {as_of}($2) b using ({keys})
    where a.valid_from is distinct from b.valid_from;
end $$;

create or replace function {changes}(timestamptz, timestamptz)
returns table (change text, before {table}, after {table}) language plpgsql volatile as $$
#variable_conflict use_column
begin
    if $1 is null or $2 is null then
        raise exception 'two moments are needed, not null' using errcode = 'null_value_not_allowed';
    end if;
    return query
    select * from {changes}({store}.position_at($1), {store}.position_at($2));
end $$;

create or replace function {changes}(text, text)
returns table (change text, before {table}, after {table}) language plpgsql volatile as $$
#variable_conflict use_column
begin
    return query select * from {changes}($1::timestamptz, $2::timestamptz);
end $$;

-- All that rows ever were, each version with the positions from which and up to before which it held;
-- null if it still does.
create or replace function {versions}()
returns table ({types}, valid_from bigint, valid_to bigint) language sql stable as $$
    select {columns}, h.valid_from, null::bigint from {table} h
    union all
    select {columns}, h.valid_from, h.valid_to from {history} h
$$;
