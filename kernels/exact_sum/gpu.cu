// Exact sums: see __init__.py. Every thread folds its numbers, as cpu.h explains: it adds them to a large constant. The
// part of a number that the sum keeps is a multiple of the last bit of the constant. The remainder is exact and is the
// input of the next fold. Four folds reach 160 bits below the largest number. Remainders after that, and numbers that
// cannot be folded, are added one by one.
//
// A thread block keeps two sums, of the positive terms and of the magnitudes of the negative ones, in 32-bit words. A
// thread whose addition overflows a word adds the carry to the next word. The sums are therefore exact at any time, and
// wide enough for 2^127 terms. Shared memory holds COPIES of both sums, and adjacent threads use different copies,
// because they would otherwise wait for each other: most of them add to the same words. At the end the block adds the
// differences of the two sums to the limbs: less than COPIES·2^32 per limb, for up to 2^28 blocks.
//
// With several sums, the blocks (i, k) of the grid add row k of the numbers to row k of the limbs.

#include "../rows.h"

enum { LIMBS = 136, SLOTS = LIMBS + 3, ORIGIN = 2176, SPECIAL = 0x7ff, BATCH = 8, COPIES = 8, WORDS = LIMBS + SLOTS };
// Sums start at 1.5·2^(top + ROOM) and stay in their binade for up to 2^(ROOM - 1) numbers below 2^top, even if each is
// rounded up to 2^top. The FOLDS split the bits of a number, STEP bits each.
enum { FOLDS = 4, ROOM = 11, STEP = 53 - ROOM, LOWEST = -800, HIGHEST = 1000 };
// `top` is guessed ABOVE bits above the numbers of a batch, and lowered if it is more than TOO_HIGH bits too high.
enum { ABOVE = 3, TOO_HIGH = 64 };
// The positions of the lowest bit of a mantissa and of a product of mantissas, for exponent 0: x = m 2^(e - 1075).
enum { NUMBER_UNIT = ORIGIN - 1075, PRODUCT_UNIT = ORIGIN - 2 * 1075 };

__shared__ unsigned int sums[COPIES][WORDS];  // |positive terms|, |negative ones|, and how many are +∞, −∞ and NaN

__device__ inline u64 bits_of(double x) { return (u64)__double_as_longlong(x); }
__device__ inline int exponent_of(u64 bits) { return (int)(bits >> 52) & SPECIAL; }
__device__ inline int scale_of(u64 bits) { return exponent_of(bits) + !exponent_of(bits); }
__device__ inline u64 mantissa_of(u64 bits) {
    return (bits & ((1ull << 52) - 1)) | (u64)(exponent_of(bits) != 0) << 52;
}
// The upper half of the bits of |x|, which sorts like |x|, and the same for 2^exponent.
__device__ inline int upper_bits(double x) { return (int)(bits_of(x) >> 32) & 0x7fffffff; }
__device__ constexpr int upper_bits_of_power(int exponent) { return (exponent + 1023) * (1 << 20); }

// Adds ±m·2^(position - ORIGIN). `low` and `high` are m shifted by up to 31 bits; the shift by 1 before that by 63 - …
// avoids a shift by 64 bits, which is undefined. Each pass adds 32 bits, and the carry joins the next 32 bits.
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
        add_integer(mantissa_of(bits), scale_of(bits) + NUMBER_UNIT, bits >> 63);
}

__device__ inline void add_product(double x, double y) {
    const u64 a = bits_of(x), b = bits_of(y);
    if (exponent_of(a) == SPECIAL || exponent_of(b) == SPECIAL) {
        add_number(x * y);
        return;
    }
    const u64 m = mantissa_of(a), n = mantissa_of(b);
    const int position = scale_of(a) + scale_of(b) + PRODUCT_UNIT;
    add_integer(m * n, position, (a ^ b) >> 63);
    add_integer(__umul64hi(m, n), position + 64, (a ^ b) >> 63);
}

// The folds of one thread for numbers below 2^top. `limit` is the upper half of the bits of 2^top; `batches` is the
// number of batches that may still be added before a sum could leave the binade of its constant.
struct Folds {
    double sum[FOLDS];
    int limit, batches;

    // 1.5·2^(top + ROOM - fold·STEP), made from its bits: the exponent is in bits 20 to 30 of the upper half.
    __device__ double constant(int fold) const {
        return __longlong_as_double((long long)(limit + (ROOM - fold * STEP) * (1 << 20) + (1 << 19)) << 32);
    }

    __device__ void begin(int largest) {
        limit = upper_bits_of_power(min(max((largest >> 20) - 1022 + ABOVE, (int)LOWEST), (int)HIGHEST));
        batches = (1 << (ROOM - 1)) / BATCH;
        for (int f = 0; f < FOLDS; ++f) sum[f] = constant(f);
    }

    // A constant and its sum have the same exponent, so the difference of their bits is the sum as an integer.
    __device__ void flush() {
        for (int f = 0; f < FOLDS; ++f) {
            const long long units = (long long)(bits_of(sum[f]) - bits_of(constant(f)));
            const int position = (limit >> 20) - 1023 + ROOM - 52 - f * STEP + ORIGIN;
            add_integer((u64)(units < 0 ? -units : units), position, units < 0);
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

    // Adds a batch. Its last ERRORS numbers are rounding errors of products in the same batch: each is at most 2^-53
    // times a product, so they cannot be the largest number, and the first fold, which would keep nothing of them, is
    // left out.
    template <int ERRORS> __device__ void add(double (&x)[BATCH]) {
        int largest = 0;
        u64 remainders = 0;
        for (int j = 0; j < BATCH - ERRORS; ++j) largest = max(largest, upper_bits(x[j]));
        if (largest >= limit || !batches) {
            flush();
            begin(largest);
        }
        --batches;
        if (largest < limit)
            for (int j = 0; j < BATCH; ++j) x[j] = j < BATCH - ERRORS ? fold<0>(x[j]) : fold<1>(x[j]);
        for (int j = 0; j < BATCH; ++j) remainders |= bits_of(x[j]);
        if (remainders << 1) {  // without the sign: a remainder may be -0
            for (int j = 0; j < BATCH; ++j) add_number(x[j]);
            if (limit - largest > TOO_HIGH << 20) batches = 0;
        }
    }
};

__device__ inline void clear_sums() {
    for (int k = threadIdx.x; k < COPIES * WORDS; k += blockDim.x) sums[k / WORDS][k % WORDS] = 0;
    __syncthreads();
}

// Adds the sums of the block to the limbs: the differences of the two sums, and the counts of ±∞ and NaN.
__device__ inline void add_to_limbs(u64* limbs) {
    __syncthreads();
    for (int k = threadIdx.x; k < SLOTS; k += blockDim.x) {
        u64 total = 0;
        for (int c = 0; c < COPIES; ++c) total += (k < LIMBS ? (u64)sums[c][k] : 0) - sums[c][LIMBS + k];
        if (total) atomicAdd(limbs + blockIdx.y * SLOTS + k, k < LIMBS ? total : -total);
    }
}

extern "C" __global__ void __launch_bounds__(256, 4) accumulate(
    const double* x, long long pitch, unsigned int columns, unsigned long long numbers, unsigned long long* limbs)
{
    Walk<1> walk(columns, numbers, {{(u64)pitch, 1}});
    Folds folds;
    x += blockIdx.y * pitch;
    clear_sums();
    for (folds.begin(0); walk.left > 0; walk.left -= BATCH) {
        double batch[BATCH];
        for (int j = 0; j < BATCH; ++j, walk.advance()) batch[j] = j < walk.left ? x[(long long)walk.value[0]] : 0;
        folds.add<0>(batch);
    }
    folds.flush();
    add_to_limbs(limbs);
}

// Adds products as p + e = x·y, where p is the rounded product and e, by a fused multiply-add, its rounding error. If p
// is too large or too small for an exact e, the mantissas are multiplied instead.
extern "C" __global__ void __launch_bounds__(256, 4) accumulate_products(
    const double* x, const double* y, long long x_pitch, long long y_pitch, unsigned int columns,
    unsigned long long numbers, unsigned long long* limbs)
{
    const int half = BATCH / 2;
    Walk<2> walk(columns, numbers, {{(u64)x_pitch, 1}, {(u64)y_pitch, 1}});
    Folds folds;
    x += blockIdx.y * x_pitch;
    y += blockIdx.y * y_pitch;
    clear_sums();
    for (folds.begin(0); walk.left > 0; walk.left -= half) {
        double batch[BATCH];
        for (int j = 0; j < half; ++j, walk.advance()) {
            batch[j] = j < walk.left ? x[(long long)walk.value[0]] : 0;
            batch[half + j] = j < walk.left ? y[(long long)walk.value[1]] : 0;
        }
        for (int j = 0; j < half; ++j) {
            const double a = batch[j], b = batch[half + j], p = a * b;
            const bool unfit = upper_bits(p) >= upper_bits_of_power(HIGHEST) ||
                               (upper_bits(p) < upper_bits_of_power(-900) && a != 0 && b != 0);
            if (unfit) add_product(a, b);
            batch[j] = unfit ? 0 : p;
            batch[half + j] = unfit ? 0 : fma(a, b, -p);
        }
        folds.add<half>(batch);
    }
    folds.flush();
    add_to_limbs(limbs);
}
