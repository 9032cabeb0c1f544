"""Deliberate faults, each of which the simulation must catch: so that its silence means something.

catalogue.py   the faults
patching.py    puts one into the code that runs, before anything is simulated
__main__.py    hunts each in a process of its own, and prints which execution caught it, and after how many
"""
