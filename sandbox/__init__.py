"""Local stand-ins of the clouds, for the demo and the tests. Nothing here is meant for production."""
