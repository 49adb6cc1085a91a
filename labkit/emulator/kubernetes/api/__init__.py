"""The API server: what it stores, how it answers."""
