"""From a leak, or a suspicion, to keys that are shown dead: which secrets, in which order, done, and recorded."""
