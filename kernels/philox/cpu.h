/* Philox4x32-10 over an array of indices: see __init__.py. */
#include <stdint.h>

/* One clone per level of the architecture, chosen when the library is loaded. */
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#define CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define CLONES
#endif

/* Words are kept in 64 bits, as the products are: the compiler then makes vectors of them. */
CLONES static void philox_words(uint64_t seed, uint64_t stream, uint64_t step, const uint64_t *restrict index,
                                uint32_t *restrict out, int64_t n)
{
    const uint64_t low = 0xFFFFFFFF;
    for (int64_t i = 0; i < n; i++) {
        uint64_t k0 = seed & low, k1 = seed >> 32, c0 = index[i] & low, c1 = index[i] >> 32, c2 = step, c3 = stream;
#pragma GCC unroll 10
        for (int round = 0; round < 10; round++) {
            uint64_t p0 = 0xD2511F53u * c0, p1 = 0xCD9E8D57u * c2;
            c0 = p1 >> 32 ^ c1 ^ k0, c2 = p0 >> 32 ^ c3 ^ k1;
            c1 = p1 & low, c3 = p0 & low;
            k0 = (k0 + 0x9E3779B9u) & low, k1 = (k1 + 0xBB67AE85u) & low;
        }
        out[4 * i] = (uint32_t)c0, out[4 * i + 1] = (uint32_t)c1;
        out[4 * i + 2] = (uint32_t)c2, out[4 * i + 3] = (uint32_t)c3;
    }
}
