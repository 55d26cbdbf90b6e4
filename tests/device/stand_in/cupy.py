"""CuPy for tests without a GPU: the emulated GPU under CuPy's name. This folder comes first in PYTHONPATH."""

import sys

from anyrank.device.emulated import fake

fake.cuda.set_allocator = lambda allocator: None  # type: ignore[attr-defined]
sys.modules[__name__] = fake
