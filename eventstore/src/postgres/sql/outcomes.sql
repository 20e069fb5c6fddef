select key, fingerprint, version, position, events from {schema}.idempotency where key = any ($1)
