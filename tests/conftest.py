"""For every test: no example of a property fails for the time that it takes, which says nothing here."""

from hypothesis import settings

settings.register_profile("keyturn", deadline=None)
settings.load_profile("keyturn")
