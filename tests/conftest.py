from hypothesis import settings

# Shared machines stall; how long an example takes says nothing here.
settings.register_profile("steady", deadline=None)
settings.load_profile("steady")
