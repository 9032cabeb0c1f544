"""Tells owners what became of their secrets, and makes consumers read a new value."""
