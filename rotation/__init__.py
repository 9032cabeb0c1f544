"""The engine of Keyturn, and the hosts that run it."""
