"""np.sort on one core without AVX-512: its AVX2 code is several times faster on Zen 4; see sort_numpy.py."""

import sort_numpy


class Avx2(sort_numpy.NumPy):
    name = "np.sort by AVX2, one core"
    # All features beyond AVX2, by the names of all versions of NumPy.
    variables = {"NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL"}
