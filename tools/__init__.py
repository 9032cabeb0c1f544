"""What this repository makes of itself: the reference, and the site."""
