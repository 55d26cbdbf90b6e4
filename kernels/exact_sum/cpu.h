/* Exact accumulation of doubles and of products of doubles in integer limbs: see __init__.py.

   A block of numbers is added by folds. Each lane adds its numbers to a large constant. The part of a number that
   the sum keeps is an exact multiple of a known unit, and the remainder is exact too and is the input of the next
   fold (Rump, Ogita and Oishi, SIAM J. Sci. Comput. 31 (2008) 189-224; Demmel and Nguyen, ARITH 21 (2013) 163-172).
   Constant and sum have the same exponent, so the sum of a lane as an integer is the difference of their bits. Two
   rounds of two folds reach 183 bits below the largest number. Remainders after that, and blocks with infinities,
   NaNs or very large numbers, are added number by number. */

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "../clones.h"

enum { LIMBS = 136, ORIGIN = 2176, PLUS = LIMBS, MINUS, NANS, LANES = 64, BLOCK = 1024, SETTLE = 1 << 28 };
enum { LOWEST = -800, HIGHEST = 1000, SPECIAL = 0x7ff };

#define SIGN ((uint64_t)1 << 63)
#define IMPLICIT ((uint64_t)1 << 52)
#define WORD INT64_C(0xffffffff)

/* An element of an array that may be unaligned. */
typedef double Number __attribute__((aligned(1)));

/* low[e] and high[e] are the sums of the low words and the high parts of mantissas with exponent e, if `slots_used`.
   `terms` counts the terms since carries were propagated. `top` is the guessed exponent bound of the next block. */
typedef struct {
    int64_t *limbs, terms;
    int top, slots_used;
    int64_t low[SPECIAL], high[SPECIAL];
} Sum;

/* The result of a round of folds: the integer sums of its two folds, the exponent bound of the numbers of the block,
   and whether a remainder is not zero. */
typedef struct {
    int64_t high, low;
    int bound, left;
} Round;

static inline uint64_t bits_of(double x) {
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static inline int exponent_of(uint64_t bits) { return (int)(bits >> 52) & SPECIAL; }

/* The signed integer m with |x| = |m| 2^(max(exponent, 1) - 1075). */
static inline int64_t mantissa_of(uint64_t bits) {
    int64_t sign = (int64_t)bits >> 63;
    uint64_t m = (bits & (IMPLICIT - 1)) | ((uint64_t)(exponent_of(bits) != 0) << 52);
    return ((int64_t)m ^ sign) - sign;
}

/* 1.5 2^exponent. */
static inline double constant(int exponent) {
    uint64_t bits = (uint64_t)(exponent + 1023) << 52 | IMPLICIT >> 1;
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline int scale_of(int exponent) { return exponent + !exponent; }

/* Adds v 2^(position - ORIGIN), |v| < 2^96: the low and middle words unsigned, the high one signed. */
static inline void add_integer(int64_t *limbs, __int128 v, int position) {
    int64_t *limb = limbs + (position >> 5);
    v = (__int128)((unsigned __int128)v << (position & 31));
    limb[0] += (uint32_t)v;
    limb[1] += (uint32_t)(v >> 32);
    limb[2] += (int64_t)(v >> 64);
}

static void add_special(int64_t *limbs, double x) { limbs[x != x ? NANS : x > 0 ? PLUS : MINUS]++; }

static void add_numbers(Sum *sum, const Number *x, int n) {
    if (!sum->slots_used) {
        memset(sum->low, 0, sizeof sum->low);
        memset(sum->high, 0, sizeof sum->high);
    }
    sum->slots_used = 1;
    for (int i = 0; i < n; i++) {
        uint64_t bits = bits_of(x[i]);
        int exponent = exponent_of(bits);
        if (exponent == SPECIAL) {
            add_special(sum->limbs, x[i]);
            continue;
        }
        int64_t m = mantissa_of(bits);
        sum->low[exponent] += m & WORD;
        sum->high[exponent] += m >> 32;
    }
}

static void add_products(Sum *sum, const Number *x, const Number *y, int n) {
    for (int i = 0; i < n; i++) {
        uint64_t a = bits_of(x[i]), b = bits_of(y[i]);
        if (exponent_of(a) == SPECIAL || exponent_of(b) == SPECIAL) {
            add_special(sum->limbs, x[i] * y[i]);
            continue;
        }
        __int128 product = (__int128)mantissa_of(a) * mantissa_of(b);
        int position = scale_of(exponent_of(a)) + scale_of(exponent_of(b)) + 26;
        add_integer(sum->limbs, (uint64_t)product, position);
        add_integer(sum->limbs, (int64_t)(product >> 64), position + 64);
    }
}

/* Adds the slots to the limbs and propagates carries: then all limbs but the last are in [0, 2^32). */
static void settle(Sum *sum) {
    for (int e = 0; sum->slots_used && e < SPECIAL; e++)
        add_integer(sum->limbs, sum->low[e] + (__int128)sum->high[e] * (WORD + 1), scale_of(e) + 1101);
    sum->slots_used = 0;
    sum->terms = 0;
    for (int k = 0; k < LIMBS - 1; k++) {
        sum->limbs[k + 1] += sum->limbs[k] >> 32;
        sum->limbs[k] &= WORD;
    }
}

/* Two folds of n numbers (a multiple of LANES, at most BLOCK) and their remainders. They are valid only if all
   numbers are less than 2^top in magnitude: then no lane leaves the binade of its constant. */
CLONES static void fold(const Number *x, double *remainder, int n, int top, Round *found) {
    double a[LANES], b[LANES];
    const double first = constant(top + 7), second = constant(top - 39);
    uint64_t left = 0, high = 0, low = 0;
    int64_t largest = 0;
    for (int l = 0; l < LANES; l++) a[l] = first, b[l] = second;
    for (const Number *end = x + n; x < end; x += LANES, remainder += LANES)
        for (int l = 0; l < LANES; l++) {
            int64_t magnitude = (int64_t)(bits_of(x[l]) & ~SIGN);
            double s = a[l] + x[l], r = x[l] - (s - a[l]), t = b[l] + r;
            r -= t - b[l];
            largest = magnitude > largest ? magnitude : largest;
            left |= bits_of(r) & ~SIGN;
            remainder[l] = r;
            a[l] = s;
            b[l] = t;
        }
    for (int l = 0; l < LANES; l++) {
        high += bits_of(a[l]) - bits_of(first);
        low += bits_of(b[l]) - bits_of(second);
    }
    *found = (Round){(int64_t)high, (int64_t)low, (int)(largest >> 52) - 1022, left != 0};
}

/* Adds a block whose numbers are expected to be less than 2^top; returns the actual exponent bound. */
static int add_block(Sum *sum, const Number *x, int n, int top) {
    double remainder[BLOCK];
    Round found;
    fold(x, remainder, n, top, &found);
    int bound = found.bound > LOWEST ? found.bound : LOWEST;
    if (bound > HIGHEST) {
        add_numbers(sum, x, n);
        return LOWEST;
    }
    if (bound > top) fold(x, remainder, n, top = bound, &found);
    for (int rounds = 1;; rounds++, top -= 92) {
        add_integer(sum->limbs, found.high, top - 45 + ORIGIN);
        add_integer(sum->limbs, found.low, top - 91 + ORIGIN);
        if (!found.left) return bound;
        if (rounds == 2) break;
        fold(remainder, remainder, n, top - 92, &found);
    }
    add_numbers(sum, remainder, n);
    return bound;
}

/* Computes p + e = x y exactly; returns nonzero if a product is too large or too small for that. */
CLONES static int multiply(const Number *x, const Number *y, int n, double *p, double *e) {
    int unfit = 0;
    for (int i = 0; i < n; i++) {
        p[i] = x[i] * y[i];
        e[i] = fma(x[i], y[i], -p[i]);
        unfit |= (!(fabs(p[i]) < 0x1p1000)) | ((fabs(p[i]) < 0x1p-900) & (x[i] != 0) & (y[i] != 0));
    }
    return unfit;
}

static void add_product_block(Sum *sum, const Number *x, const Number *y, int n) {
    double p[BLOCK], e[BLOCK];
    if (multiply(x, y, n, p, e)) {
        add_products(sum, x, y, n);
        return;
    }
    int bound = add_block(sum, p, n, sum->top);
    add_block(sum, e, n, bound - 53);
    sum->top = bound + 2;
}

/* Expects the next block to be at most four times as large as this one; a larger block is folded twice. */
static void add(Sum *sum, const Number *x, const Number *y, int n) {
    if (y)
        add_product_block(sum, x, y, n);
    else
        sum->top = add_block(sum, x, n, sum->top) + 2;
    sum->terms += n;
    if (sum->terms >= SETTLE) settle(sum);
}

/* Adds the numbers x, or the products x y if y is not NULL. Steps are row strides in bytes. Whole blocks are read in
   place; the rest of each row is gathered into blocks. */
static void accumulate_rows(const char *x, const char *y, int64_t x_step, int64_t y_step, int64_t rows,
                            int64_t columns, int64_t *limbs) {
    Sum sum;
    double gathered[2][BLOCK];
    int n = 0;
    sum.limbs = limbs;
    sum.top = LOWEST;
    sum.slots_used = 0;
    settle(&sum);
    for (int64_t row = 0; row < rows; row++, x += x_step, y += y ? y_step : 0) {
        const Number *a = (const Number *)x, *b = (const Number *)y;
        int64_t i = 0;
        for (; i + BLOCK <= columns; i += BLOCK) add(&sum, a + i, b ? b + i : b, BLOCK);
        while (i < columns) {
            int count = columns - i < BLOCK - n ? (int)(columns - i) : BLOCK - n;
            memcpy(gathered[0] + n, a + i, count * sizeof *a);
            if (b) memcpy(gathered[1] + n, b + i, count * sizeof *b);
            i += count;
            n += count;
            if (n == BLOCK) add(&sum, gathered[0], b ? gathered[1] : b, BLOCK), n = 0;
        }
    }
    int padded = (n + LANES - 1) / LANES * LANES;
    for (int i = n; i < padded; i++) gathered[0][i] = gathered[1][i] = 0;
    add(&sum, gathered[0], y ? gathered[1] : NULL, padded);
    settle(&sum);
}
