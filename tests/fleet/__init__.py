"""A fleet of worker processes behind a real broker."""
