"""Writes down what a persona needs (rotation.access) in each service's own words for rights."""
