"""Every store against the contract, and what is particular to each."""
