// Exact sums: see __init__.py. Every thread folds its numbers as in cpu.h: it adds them to large constants. The part
// that a sum keeps is a multiple of a known unit; the remainder is exact and is the input of the next fold. Four folds
// reach 160 bits below the largest number. Remainders after that, and numbers that cannot be folded, are added one by
// one.
//
// A thread block keeps the sums of positive and of negative magnitudes in 32-bit words. A thread whose addition
// overflows a word adds the carry to the next one, so the sums are exact at any time and wide enough for 2^127 terms.
// There are COPIES of the sums in different banks of shared memory, because adjacent threads mostly add to the same
// words. At the end a block adds their differences to the limbs: less than COPIES·2^32 each, for up to 2^28 blocks.

#include "../rows.h"

enum { LIMBS = 136, SLOTS = LIMBS + 3, ORIGIN = 2176, SPECIAL = 0x7ff, BATCH = 8, COPIES = 8, WORDS = LIMBS + SLOTS };
// Sums start at 1.5·2^(top + ROOM) and stay in their binade for up to 2^(ROOM - 1) numbers below 2^top, even if each is
// rounded up to 2^top. The FOLDS split the bits of a number, STEP bits each.
enum { FOLDS = 4, ROOM = 11, STEP = 53 - ROOM, LOWEST = -800, HIGHEST = 1000 };
// The guess of top is ABOVE bits above the numbers seen; it is lowered if it is more than TOO_HIGH bits too high.
enum { ABOVE = 3, TOO_HIGH = 64 };

__shared__ unsigned int sums[COPIES][WORDS];  // |positive terms|, |negative ones|, and how many are +∞, −∞ and NaN

__device__ inline u64 bits_of(double x) { return (u64)__double_as_longlong(x); }
__device__ inline int exponent_of(u64 bits) { return (int)(bits >> 52) & SPECIAL; }
__device__ inline int scale_of(u64 bits) { return exponent_of(bits) + !exponent_of(bits); }
__device__ inline u64 mantissa_of(u64 bits) { return (bits & ((1ull << 52) - 1)) | (u64)(exponent_of(bits) != 0) << 52; }
// The upper half of the bits of |x|, which sorts like |x|: for 2^e it is (e + 1023)·2^20.
__device__ inline int magnitude(double x) { return (int)(bits_of(x) >> 32) & 0x7fffffff; }
__device__ constexpr int power(int exponent) { return (exponent + 1023) * (1 << 20); }

// Adds ±m·2^(position - ORIGIN).
__device__ inline void add_integer(u64 m, int position, bool negative) {
    unsigned int* word = sums[threadIdx.x % COPIES] + (negative ? LIMBS : 0) + (position >> 5);
    u64 low = m << (position & 31), high = m >> 1 >> (63 - (position & 31));
    while (low | high) {
        const unsigned int part = (unsigned int)low, before = atomicAdd(word++, part);
        low = (low >> 32 | high << 32) + (before + part < part);
        high = 0;
    }
}

__device__ inline void add_number(double x) {
    const u64 bits = bits_of(x);
    if (exponent_of(bits) == SPECIAL)
        atomicAdd(sums[threadIdx.x % COPIES] + 2 * LIMBS + (x != x ? 2 : x < 0), 1u);
    else
        add_integer(mantissa_of(bits), scale_of(bits) + 1101, bits >> 63);
}

__device__ inline void add_product(double x, double y) {
    const u64 a = bits_of(x), b = bits_of(y);
    if (exponent_of(a) == SPECIAL || exponent_of(b) == SPECIAL) {
        add_number(x * y);
        return;
    }
    const u64 m = mantissa_of(a), n = mantissa_of(b);
    const int position = scale_of(a) + scale_of(b) + 26;
    add_integer(m * n, position, (a ^ b) >> 63);
    add_integer(__umul64hi(m, n), position + 64, (a ^ b) >> 63);
}

// The folds of one thread for numbers below 2^top; limit = power(top).
struct Folds {
    double sum[FOLDS];
    int limit, batches;

    __device__ double constant(int fold) const {
        return __longlong_as_double((long long)(limit + (ROOM - fold * STEP) * (1 << 20) + (1 << 19)) << 32);
    }

    __device__ void begin(int largest) {
        limit = power(min(max((largest >> 20) - 1022 + ABOVE, (int)LOWEST), (int)HIGHEST));
        batches = (1 << (ROOM - 1)) / BATCH;
        for (int f = 0; f < FOLDS; ++f) sum[f] = constant(f);
    }

    // A constant and its sum have the same exponent, so the sum as an integer is the difference of their bits.
    __device__ void empty() {
        for (int f = 0; f < FOLDS; ++f) {
            const long long found = (long long)(bits_of(sum[f]) - bits_of(constant(f)));
            const int position = (limit >> 20) - 1023 + ROOM - 52 - f * STEP + ORIGIN;
            add_integer((u64)(found < 0 ? -found : found), position, found < 0);
        }
    }

    template <int FIRST> __device__ double fold(double x) {
        for (int f = FIRST; f < FOLDS; ++f) {
            const double before = sum[f];
            sum[f] = before + x;
            x -= sum[f] - before;
        }
        return x;
    }

    // Adds a batch; each of its last ERRORS numbers is less than 2^-53 times another number of the batch.
    template <int ERRORS> __device__ void add(double (&x)[BATCH]) {
        int largest = 0;
        u64 left = 0;
        for (int j = 0; j < BATCH - ERRORS; ++j) largest = max(largest, magnitude(x[j]));
        if (largest >= limit || !batches) {
            empty();
            begin(largest);
        }
        --batches;
        if (largest < limit)
            for (int j = 0; j < BATCH; ++j) x[j] = j < BATCH - ERRORS ? fold<0>(x[j]) : fold<1>(x[j]);
        for (int j = 0; j < BATCH; ++j) left |= bits_of(x[j]);
        if (left << 1) {
            for (int j = 0; j < BATCH; ++j) add_number(x[j]);
            if (limit - largest > TOO_HIGH << 20) batches = 0;
        }
    }
};

__device__ inline void clear() {
    for (int k = threadIdx.x; k < COPIES * WORDS; k += blockDim.x) sums[k / WORDS][k % WORDS] = 0;
    __syncthreads();
}

__device__ inline void hand_over(u64* limbs) {
    __syncthreads();
    for (int k = threadIdx.x; k < SLOTS; k += blockDim.x) {
        u64 found = 0;
        for (int c = 0; c < COPIES; ++c) found += (k < LIMBS ? (u64)sums[c][k] : 0) - sums[c][LIMBS + k];
        if (found) atomicAdd(limbs + k, k < LIMBS ? found : -found);
    }
}

extern "C" __global__ void __launch_bounds__(256, 4) accumulate(
    const double* x, long long pitch, unsigned int columns, unsigned long long numbers, unsigned long long* limbs)
{
    Walk<1> walk(columns, numbers, {{(u64)pitch, 1}});
    Folds folds;
    clear();
    for (folds.begin(0); walk.left > 0; walk.left -= BATCH) {
        double batch[BATCH];
        for (int j = 0; j < BATCH; ++j, walk.go_on()) batch[j] = j < walk.left ? x[(long long)walk.place[0]] : 0;
        folds.add<0>(batch);
    }
    folds.empty();
    hand_over(limbs);
}

// Folds p and e with p + e = x·y. If p is too large or too small for an exact e, it multiplies the mantissas instead.
extern "C" __global__ void __launch_bounds__(256, 4) accumulate_products(
    const double* x, const double* y, long long x_pitch, long long y_pitch, unsigned int columns,
    unsigned long long numbers, unsigned long long* limbs)
{
    const int half = BATCH / 2;
    Walk<2> walk(columns, numbers, {{(u64)x_pitch, 1}, {(u64)y_pitch, 1}});
    Folds folds;
    clear();
    for (folds.begin(0); walk.left > 0; walk.left -= half) {
        double batch[BATCH];
        for (int j = 0; j < half; ++j, walk.go_on()) {
            batch[j] = j < walk.left ? x[(long long)walk.place[0]] : 0;
            batch[half + j] = j < walk.left ? y[(long long)walk.place[1]] : 0;
        }
        for (int j = 0; j < half; ++j) {
            const double a = batch[j], b = batch[half + j], p = a * b;
            const bool unfit = magnitude(p) >= power(HIGHEST) || (magnitude(p) < power(-900) && a != 0 && b != 0);
            if (unfit) add_product(a, b);
            batch[j] = unfit ? 0 : p;
            batch[half + j] = unfit ? 0 : fma(a, b, -p);
        }
        folds.add<half>(batch);
    }
    folds.empty();
    hand_over(limbs);
}
