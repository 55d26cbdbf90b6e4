"""Build what is compiled.

Every kernels/NAME/cpu_cython.pyx becomes anyrank.kernels.NAME.cpu_cython, and every .pyx under src a module there.

The flags are part of the promise: without -ffp-contract=off a compiler may fuse a*b+c into one
rounding, and the bits then depend on the processor. No flag that allows reordering is ever given.
An extension that cannot be built is left out with a warning; its kernel then runs another body, and so does
whatever else has one.
"""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, find_packages, setup

FLAGS = ["-O3", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-g0"]
DIRECTIVES = {"language_level": "3", "boundscheck": False, "wraparound": False, "cdivision": True}


def compiled(name: str, source: Path) -> Extension:
    """Return the extension of one .pyx and the headers beside it and around."""
    return Extension(
        name,
        [source.as_posix()],
        include_dirs=[source.parent.as_posix()],
        depends=[header.as_posix() for header in sorted(source.parent.parent.rglob("*.h"))],
        extra_compile_args=FLAGS,
        libraries=["rt"],  # for the watchdog's timer; a part of libc since glibc 2.34
        optional=True,
    )


kernels = sorted(Path("kernels").glob("*/cpu_cython.pyx"))
others = sorted(Path("src").rglob("*.pyx"))
extensions = [compiled(f"anyrank.kernels.{source.parent.name}.cpu_cython", source) for source in kernels]
extensions += [compiled(".".join(source.with_suffix("").parts[1:]), source) for source in others]

setup(
    packages=[
        *find_packages("src"),
        "anyrank.jobs",
        "anyrank.kernels",
        *(f"anyrank.kernels.{name}" for name in find_packages("kernels")),
    ],
    package_dir={"": "src", "anyrank.jobs": "jobs", "anyrank.kernels": "kernels"},
    package_data={"": ["*.cu", "*.h", "*.pyx", "py.typed", "templates/*.template", "*.j2"]},
    ext_modules=cythonize(extensions, compiler_directives=DIRECTIVES),
    options={"build_ext": {"parallel": len(os.sched_getaffinity(0))}},
)
