"""Measurements, each paired in one run with what it is compared to: `make bench` prints them."""
