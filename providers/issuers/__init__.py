"""What mints, verifies and revokes credentials: one module per way of talking to a vendor."""
