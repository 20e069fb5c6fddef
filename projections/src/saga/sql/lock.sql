select key, status, attempts, call_due, claimed_by, asked, asked_why
from {schema}.sagas where saga = $1 and key = any ($2) order by key for update
