"""What is built and handed out: packages, their extras, what they pull in."""
