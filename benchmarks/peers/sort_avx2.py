"""np.sort on one core without AVX-512: its body of AVX2 is several times faster on Zen 4; see sort_numpy.py."""

import sort_numpy


class Avx2(sort_numpy.NumPy):
    name = "np.sort by AVX2, one core"
    # What is wider than AVX2, as any version of NumPy calls it.
    variables = {"NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL"}
