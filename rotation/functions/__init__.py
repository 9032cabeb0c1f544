"""Hosts in clouds: each turns what its platform sends into the ordinary run of a secret, or a sweep."""
