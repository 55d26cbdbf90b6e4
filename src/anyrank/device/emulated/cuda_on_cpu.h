// CUDA C on the CPU. With this header before a gpu.cu, its kernels compile as C++ functions, and
// cuda_on_cpu::launch runs their threads one after another. If a kernel has barriers, each thread of a
// block is a fibre, and a barrier switches to the next fibre. No threads run concurrently, so that atomic
// operations are plain ones. A missing barrier shows in one of two orders of the threads: from the first
// to the last, or from the last to the first with ANYRANK_SHIM_ORDER=reverse.
#pragma once
#undef _FORTIFY_SOURCE  // its longjmp refuses to go to another stack
#include <math.h>
#include <setjmp.h>
#include <ucontext.h>

#include <cstdlib>
#include <cstring>

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
inline dim3 threadIdx, blockIdx, blockDim, gridDim;

#define __global__
#define __device__
#define __constant__
// All shared memory is one section of the library, which is filled with NaN at the start of each block.
// Functions with shared memory must be static.
#define __shared__ static __attribute__((section("cuda_shared")))
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)

using llong = long long;
using ullong = unsigned long long;

// The functions of CUDA that kernels use. Add a line for each further one.
inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }
inline llong __double_as_longlong(double a) {
    llong bits;
    std::memcpy(&bits, &a, sizeof bits);
    return bits;
}
inline double __longlong_as_double(llong bits) {
    double a;
    std::memcpy(&a, &bits, sizeof a);
    return a;
}
inline double __ll2double_rn(llong a) { return (double)a; }
inline double __ull2double_rn(ullong a) { return (double)a; }

inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)(((ullong)a * b) >> 32); }
inline ullong __umul64hi(ullong a, ullong b) { return (ullong)(((unsigned __int128)a * b) >> 64); }
inline int __popc(unsigned a) { return __builtin_popcount(a); }
inline int __popcll(ullong a) { return __builtin_popcountll(a); }
inline int __clzll(llong a) { return a ? __builtin_clzll((ullong)a) : 64; }
inline int __ffs(int a) { return __builtin_ffs(a); }

template <class T> T min(T a, T b) { return b < a ? b : a; }
template <class T> T max(T a, T b) { return a < b ? b : a; }
inline double min(double a, double b) { return fmin(a, b); }
inline double max(double a, double b) { return fmax(a, b); }
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }

template <class T>
struct cuda_on_cpu_same {
    using type = T;  // the value converts to the type of the target, as in CUDA's overloads
};
#define CUDA_ON_CPU_ATOMIC(NAME, NEW)                                       \
    template <class T> T NAME(T* target, typename cuda_on_cpu_same<T>::type value) { \
        T old = *target;                                                    \
        *target = (NEW);                                                    \
        return old;                                                         \
    }
CUDA_ON_CPU_ATOMIC(atomicAdd, old + value)
CUDA_ON_CPU_ATOMIC(atomicMax, old < value ? value : old)

// The linker sets these to the start and the end of the shared memory; null if there is none.
extern "C" __attribute__((weak, visibility("hidden"))) char __start_cuda_shared[], __stop_cuda_shared[];

namespace cuda_on_cpu {

constexpr size_t STACK = 64 * 1024, MOST_THREADS = 1024;
// One thread of the current block. All blocks reuse it, because its start is slow.
struct Fibre {
    jmp_buf at;
    char* stack;
    dim3 index;
    bool done;
};
inline Fibre fibres[MOST_THREADS];
inline Fibre* running = nullptr;
inline jmp_buf scheduler;
inline void (*call)(const void*) = nullptr;
inline const void* kernel = nullptr;

// Return to the scheduler until it resumes this fibre.
inline void leave() {
    if (!_setjmp(running->at)) _longjmp(scheduler, 1);
}

inline void thread_main() {
    for (;;) {
        call(kernel);
        running->done = true;
        leave();
    }
}

// Run a fibre to its next barrier or its end.
inline void enter(Fibre& fibre) {
    running = &fibre;
    threadIdx = fibre.index;
    if (_setjmp(scheduler)) return;
    if (fibre.stack) _longjmp(fibre.at, 1);
    ucontext_t start;
    getcontext(&start);
    start.uc_stack.ss_sp = fibre.stack = new char[STACK];
    start.uc_stack.ss_size = STACK;
    makecontext(&start, thread_main, 0);
    setcontext(&start);
}

// Run the block's fibres in turn, each to its next barrier or its end, until all have ended.
inline void run_fibres(size_t threads, bool reverse) {
    for (size_t i = 0; i < threads; ++i) fibres[i].done = false;
    for (size_t left = threads; left > 0;) {
        for (size_t i = 0; i < threads; ++i) {
            Fibre& fibre = fibres[reverse ? threads - 1 - i : i];
            if (fibre.done) continue;
            enter(fibre);
            left -= fibre.done;
        }
    }
}

template <bool BARRIERS, class Kernel>
void launch(const unsigned* grid, const unsigned* block, const Kernel& body) {
    gridDim = dim3(grid[0], grid[1], grid[2]);
    blockDim = dim3(block[0], block[1], block[2]);
    const size_t threads = (size_t)block[0] * block[1] * block[2];
    for (size_t i = 0; i < threads; ++i)
        fibres[i].index = dim3(i % block[0], i / block[0] % block[1], i / block[0] / block[1]);
    const char* order = getenv("ANYRANK_SHIM_ORDER");
    const bool reverse = order && !strcmp(order, "reverse");
    kernel = &body;
    call = [](const void* self) { (*static_cast<const Kernel*>(self))(); };
    for (blockIdx.z = 0; blockIdx.z < grid[2]; ++blockIdx.z)
        for (blockIdx.y = 0; blockIdx.y < grid[1]; ++blockIdx.y)
            for (blockIdx.x = 0; blockIdx.x < grid[0]; ++blockIdx.x) {
                if (__start_cuda_shared) memset(__start_cuda_shared, 0xff, __stop_cuda_shared - __start_cuda_shared);
                if (BARRIERS) {
                    run_fibres(threads, reverse);
                    continue;
                }
                for (size_t i = 0; i < threads; ++i) {
                    threadIdx = fibres[reverse ? threads - 1 - i : i].index;
                    body();
                }
            }
}

}  // namespace cuda_on_cpu

inline void __syncthreads() { cuda_on_cpu::leave(); }
