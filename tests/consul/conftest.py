"""How hard property tests try: without a deadline for one example, for the machine may be busy."""

from hypothesis import settings

settings.register_profile("lvsctl", deadline=None, max_examples=60)
settings.load_profile("lvsctl")
