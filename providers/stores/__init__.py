"""Keepers of secrets: one module per kind of vault."""
