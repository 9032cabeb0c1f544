"""Builds what clouds run: packages of the rotation functions."""
