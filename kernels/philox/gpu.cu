// Random numbers by Philox4x32-10: see __init__.py. One thread per index, except in `normal`: several indices per
// thread. `index` and `out` do not overlap. In `normal`, `out` is not __restrict__: otherwise the compiler keeps the
// constants of the table in registers (70 instead of 48 to 50), and a multiprocessor runs 768 threads instead of 1024
// or more.
#define WORD unsigned int
#include "quantile.h"
#include "rounds.h"

template <class T, int N>
struct alignas(sizeof(T) * N) together {  // written by one store
    T value[N];
};

__device__ __forceinline__ long long thread_index() { return (long long)blockIdx.x * blockDim.x + threadIdx.x; }

__device__ __forceinline__ unsigned long long joined(WORD low, WORD high) {
    return (unsigned long long)high << 32 | low;
}

// The upper 53 bits of two words, as a number in [0, 1).
__device__ __forceinline__ double unit(WORD low, WORD high) { return __ull2double_rn(joined(low, high) >> 11) * 0x1p-53; }

extern "C" __global__ void words(unsigned long long seed, unsigned int stream, unsigned int step,
                                 const unsigned long long* __restrict__ index, unsigned int* __restrict__ out,
                                 long long n) {
    const long long i = thread_index();
    if (i >= n) return;
    const block c = philox(seed, stream, step, index[i]);
    reinterpret_cast<together<unsigned int, 4>*>(out)[i] = {c.c0, c.c1, c.c2, c.c3};
}

extern "C" __global__ void uniform(unsigned long long seed, unsigned int stream, unsigned int step,
                                   const unsigned long long* __restrict__ index, double low, double width,
                                   double* __restrict__ out, long long n) {
    const long long i = thread_index();
    if (i >= n) return;
    const block c = philox(seed, stream, step, index[i]);
    out[i] = low + width * unit(c.c0, c.c1);
}

extern "C" __global__ void pair(unsigned long long seed, unsigned int stream, unsigned int step,
                                const unsigned long long* __restrict__ index, double* __restrict__ out, long long n) {
    const long long i = thread_index();
    if (i >= n) return;
    const block c = philox(seed, stream, step, index[i]);
    reinterpret_cast<together<double, 2>*>(out)[i] = {unit(c.c0, c.c1), unit(c.c2, c.c3)};
}

// Numbers in the tails take five times the work of others. Each thread computes its tail numbers last (`out` holds
// their arguments meanwhile), so that the other threads of the warp do not wait for each one. `each` is at most 32.
extern "C" __global__ void normal(unsigned long long seed, unsigned int stream, unsigned int step,
                                  const unsigned long long* __restrict__ index, const double* table, int each,
                                  double* out, long long n) {
    const constants& constant = *reinterpret_cast<const constants*>(table);
    const long long first = thread_index(), threads = (long long)gridDim.x * blockDim.x;
    unsigned int left = 0;
    for (int j = 0; j < each && first + j * threads < n; ++j) {
        const long long i = first + j * threads;
        const block c = philox(seed, stream, step, index[i]);
        // p - 1/2, for p = (k + 1/2) / 2^53 and k in [0, 2^53)
        const double q = __ll2double_rn((long long)(joined(c.c0, c.c1) >> 11) * 2 + 1 - (1ll << 53)) * 0x1p-54;
        const bool is_near = fabs(q) <= 0.425;
        out[i] = is_near ? q * ratio(constant.centre, 0.180625 - q * q) : q;
        left |= (unsigned int)!is_near << j;
    }
    for (; left; left &= left - 1) {
        double* number = out + first + (__ffs((int)left) - 1) * threads;
        *number = tail_quantile(constant, *number);
    }
}

// Lemire's method. `span` is 0 for 2^64; `unfair` is 2^64 mod span; the upper bits of the stream are the attempt.
extern "C" __global__ void integers(unsigned long long seed, unsigned int stream, unsigned int step,
                                    const unsigned long long* __restrict__ index, unsigned long long low,
                                    unsigned long long span, unsigned long long unfair, long long* __restrict__ out,
                                    long long n) {
    const long long i = thread_index();
    if (i >= n) return;
    for (;; stream += 1u << 24) {
        const block c = philox(seed, stream, step, index[i]);
        const unsigned long long x = joined(c.c0, c.c1), y = joined(c.c2, c.c3);
        const bool x_is_fair = x * span >= unfair;
        if (!x_is_fair && y * span < unfair) continue;
        const unsigned long long fair = x_is_fair ? x : y;
        out[i] = (long long)(low + (span ? __umul64hi(fair, span) : fair));
        return;
    }
}
