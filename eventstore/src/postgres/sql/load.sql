select stream_index, version, "position", type, schema_version, content
from {schema}.load_streams($1, $2, $3, $4, $5, $6, $7, $8, $9)
