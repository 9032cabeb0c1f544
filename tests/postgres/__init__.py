"""A real PostgreSQL server with TLS, and a wire to it on which things go wrong."""
