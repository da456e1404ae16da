"""One thread per process: small tensors only lose time to thread pools, and timings of others stay clean."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
