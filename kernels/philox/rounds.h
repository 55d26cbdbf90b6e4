/* Philox4x32-10 in C and in CUDA C++: see __init__.py. WORD is the type of a word. With 64 bits, the size of a product,
   compilers for CPUs vectorize over blocks. */
#ifdef __cplusplus
#define INLINE __device__ __forceinline__
#else
#define INLINE static inline
#endif
#ifdef __CUDACC__
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

#define M0 0xD2511F53u
#define M1 0xCD9E8D57u
#define LOW 0xFFFFFFFFu

struct block {
    WORD c0, c1, c2, c3;
};

INLINE void multiply(unsigned int multiplier, WORD word, WORD *high, WORD *low)
{
#ifdef __CUDACC__ /* NVRTC compiles the C below to two multiplications, one for each half */
    asm("{ .reg .u64 p; mul.wide.u32 p, %2, %3; mov.b64 {%0, %1}, p; }" : "=r"(*low), "=r"(*high) : "r"(word), "r"(multiplier));
#else
    const unsigned long long product = (unsigned long long)multiplier * word;
    *high = (WORD)(product >> 32), *low = (WORD)(product & LOW);
#endif
}

INLINE void philox_round(struct block *c, WORD k0, WORD k1)
{
    WORD high0, high1, low0, low1;
    multiply(M0, c->c0, &high0, &low0);
    multiply(M1, c->c2, &high1, &low1);
    c->c0 = high1 ^ c->c1 ^ k0, c->c2 = high0 ^ c->c3 ^ k1;
    c->c1 = low1, c->c3 = low0;
}

/* The four words of one index. */
INLINE struct block philox(unsigned long long seed, WORD stream, WORD step, unsigned long long index)
{
    struct block c = {(WORD)(index & LOW), (WORD)(index >> 32), step, stream};
    WORD k0 = (WORD)(seed & LOW), k1 = (WORD)(seed >> 32);
    UNROLL for (int round = 0; round < 10; round++) {
        philox_round(&c, k0, k1);
        k0 = (k0 + 0x9E3779B9u) & LOW, k1 = (k1 + 0xBB67AE85u) & LOW;
    }
    return c;
}
