"""The audit trail: its chains, its places, its commands."""
