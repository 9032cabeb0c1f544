"""The command line: parse, step, translate."""
