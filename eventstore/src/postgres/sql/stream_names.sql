select id, category, key from {schema}.streams where id = any ($1)
