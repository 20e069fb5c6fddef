(select * from {schema}.events union all select * from {schema}.archived_events)
