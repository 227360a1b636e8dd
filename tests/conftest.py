import os

# Before numpy is loaded: its threads would wait for each other where a test counts processor time. Spark's workers have one.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from hypothesis import settings

# Shared machines stall; how long an example takes says nothing here.
settings.register_profile("steady", deadline=None)
settings.load_profile("steady")
