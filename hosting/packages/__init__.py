"""Builds the zips that Lambda and Azure Functions run."""
