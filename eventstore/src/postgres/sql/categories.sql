-- The categories that there are streams of. From one to the next by the index: there are few of them and many
-- streams.
with recursive found (category) as (
    (select category from {schema}.streams order by category limit 1)
    union all
    select (
        select s.category from {schema}.streams s
        where s.category > found.category order by s.category limit 1
    )
    from found where found.category is not null
)
select category from found where category is not null
