"""The kernels: one folder per kernel, one file per body. They know nothing of MPI, ranks or files.

A folder `NAME/` holds

`__init__.py`
    The kernel's definition in words (equations, arrays, shapes, dtypes, source), `OPERATIONS`, the
    names of its functions, and `example(operation, size)`, which returns `(arguments, amount, unit)`
    for a problem of about `size` elements: the tests call every body with these arguments and compare
    every array and the returned value bit for bit; `anyrank doctor` times them (`amount` of `unit` per call).
    `ON_HOST` has the places of arguments that are NumPy arrays with every body, if there are such.
`reference.py`
    The body in plain NumPy. It is the definition: every other body gives its bits.
`cpu_numba.py`, `cpu_cython.pyx`
    Bodies for the CPU, compiled when first called and ahead of time, where a folder has them. Each has
    the same functions with the same arguments.
`gpu.py`, `gpu.cu`
    The body for a GPU: CUDA C, and functions that launch it. They take one more argument, first:
    `gpu`, with `gpu.launch(function, grid, block, arguments)`, where arguments are arrays of the
    device or NumPy scalars of exactly the type that the CUDA function declares.

What several kernels share lies beside the folders: `rows.h` and `rows.py`, walks over strided rows on a GPU, and
`clones.h`, a function per level of the processor.

Arithmetic on floating-point numbers has one written order, no contraction into fused multiply-add
and no reassociation, in every body. A body that cannot do its work raises `Declined` with the reason
when it is imported; the runtime then takes another.
"""


class Declined(Exception):  # noqa: N818  (an answer, not an error)
    """A body's typed answer that it cannot be used here, and why."""
