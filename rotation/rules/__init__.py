"""The rules of `decide`, one family to a module. Each is a generator over a Situation; decide.py has their order."""
