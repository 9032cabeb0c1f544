"""From what a scanner found to the secrets that it is of."""
