"""The kernels: one folder per kernel, one file per body. They do not depend on MPI, ranks or files.

A folder `NAME/` contains:

`__init__.py`
    The definition of the kernel in its docstring (equations, arrays, shapes, dtypes, source), the names of its
    functions in `OPERATIONS`, and `example(operation, size)`, which returns `(arguments, amount, unit)` for a
    problem of about `size` elements. The tests call every body with these arguments and compare all arrays and
    the returned value bit for bit; `anyrank doctor` times them (`amount` of `unit` per call). `ON_HOST` lists the
    positions of arguments that are NumPy arrays for every body, if there are any.
`reference.py`
    The body in plain NumPy. It is the definition: every other body returns the same bits.
`cpu_numba.py`, `cpu_cython.pyx`
    Optional bodies for the CPU, compiled on the first call or ahead of time. They have the same functions with
    the same arguments.
`gpu.py`, `gpu.cu`
    The body for a GPU: CUDA C, and functions that launch it. These have an additional first argument `gpu`,
    with `gpu.launch(function, grid, block, arguments)`. The arguments of a launch are device arrays or NumPy
    scalars of exactly the type that the CUDA function declares.

Files shared by several kernels are beside the folders: `rows.h` and `rows.py` iterate over strided rows on a GPU, and
`clones.h` compiles a function for several levels of the x86-64 architecture.

In every body, floating-point operations have one order, as written: no contraction into fused multiply-add and no
reassociation. A body that cannot work raises `Declined` with the reason when it is imported; the runtime then
uses another body.
"""


class Declined(Exception):  # noqa: N818  (a decision, not an error)
    """A body cannot be used here; the message is the reason."""
