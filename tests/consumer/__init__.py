"""The client that applications use, and what is said of it in docs/consumers.md."""
