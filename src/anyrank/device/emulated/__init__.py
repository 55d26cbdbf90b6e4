"""An emulated GPU: arrays in host memory behind CuPy's interface, and CUDA C compiled for the CPU."""
