/* Exact accumulation of doubles and of products of doubles in integer limbs: see __init__.py.

   A block of numbers is added by folds. In a fold, each lane adds its numbers to a large constant. The part of a number
   that the sum keeps is a multiple of the last bit of the constant. The remainder is exact, too, and is the input of
   the next fold (Rump, Ogita and Oishi, SIAM J. Sci. Comput. 31 (2008) 189-224; Demmel and Nguyen, ARITH 21 (2013)
   163-172). The constant and the sum have the same exponent. Therefore the difference of their bits is the sum of the
   lane as an integer, in units of the last bit. Two rounds of two folds reach 183 bits below the largest number.
   Remainders after that, and blocks with infinities, NaNs or very large numbers, are added number by number.

   The constant of numbers below 2^top is 1.5 2^E with E = top + ROOM. A lane adds BLOCK / LANES = 2^4 of them, less
   than 2^(E - 1) in all, so its sum stays in the binade of the constant. The last bit of the constant is 2^(E - 52). A
   remainder is at most half of it, 2^(E - 53) = 2^(top - STEP), so that the next fold has the bound top - STEP. */

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "../clones.h"

enum { LIMBS = 136, ORIGIN = 2176, PLUS = LIMBS, MINUS, NANS, LANES = 64, BLOCK = 1024, MOST_TERMS = 1 << 28 };
enum { LOWEST = -800, HIGHEST = 1000, SPECIAL = 0x7ff, ROOM = 7, STEP = 53 - ROOM };
/* The positions of the lowest bit of a mantissa and of a product of mantissas, for exponent 0: x = m 2^(e - 1075). */
enum { NUMBER_UNIT = ORIGIN - 1075, PRODUCT_UNIT = ORIGIN - 2 * 1075 };

#define SIGN ((uint64_t)1 << 63)
#define IMPLICIT ((uint64_t)1 << 52)
#define WORD INT64_C(0xffffffff)

/* An element of an array that may be unaligned. */
typedef double Number __attribute__((aligned(1)));

/* If `slots_used`, low_words[e] and high_words[e] are the sums of the two words of the mantissas with exponent e.
   `terms` is the number of terms since the last propagation of carries. The numbers of the next block are expected to
   be below 2^top. */
typedef struct {
    int64_t *limbs, terms;
    int top, slots_used;
    int64_t low_words[SPECIAL], high_words[SPECIAL];
} Sum;

/* The result of a round: the integer sums of its two folds, the exponent bound of the numbers (all are below 2^bound),
   and whether a remainder is not zero. */
typedef struct {
    int64_t first, second;
    int bound, has_remainder;
} Round;

static inline uint64_t bits_of(double x) {
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static inline int exponent_of(uint64_t bits) { return (int)(bits >> 52) & SPECIAL; }

/* The signed integer m with x = m 2^(max(exponent, 1) - 1075). `sign` is 0 or -1: (m ^ sign) - sign negates m without a
   branch. */
static inline int64_t mantissa_of(uint64_t bits) {
    int64_t sign = (int64_t)bits >> 63;
    uint64_t m = (bits & (IMPLICIT - 1)) | ((uint64_t)(exponent_of(bits) != 0) << 52);
    return ((int64_t)m ^ sign) - sign;
}

/* 1.5 2^exponent. */
static inline double fold_constant(int exponent) {
    uint64_t bits = (uint64_t)(exponent + 1023) << 52 | IMPLICIT >> 1;
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* max(exponent, 1), without a branch: subnormal numbers have the unit of exponent 1. */
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
        memset(sum->low_words, 0, sizeof sum->low_words);
        memset(sum->high_words, 0, sizeof sum->high_words);
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
        sum->low_words[exponent] += m & WORD;
        sum->high_words[exponent] += m >> 32;
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
        int position = scale_of(exponent_of(a)) + scale_of(exponent_of(b)) + PRODUCT_UNIT;
        add_integer(sum->limbs, (uint64_t)product, position);
        add_integer(sum->limbs, (int64_t)(product >> 64), position + 64);
    }
}

/* Adds the slots to the limbs and propagates carries: then all limbs but the last are in [0, 2^32). */
static void propagate_carries(Sum *sum) {
    for (int e = 0; sum->slots_used && e < SPECIAL; e++)
        add_integer(sum->limbs, sum->low_words[e] + (__int128)sum->high_words[e] * (WORD + 1),
                    scale_of(e) + NUMBER_UNIT);
    sum->slots_used = 0;
    sum->terms = 0;
    for (int k = 0; k < LIMBS - 1; k++) {
        sum->limbs[k + 1] += sum->limbs[k] >> 32;
        sum->limbs[k] &= WORD;
    }
}

/* One round: two folds of n numbers (a multiple of LANES, at most BLOCK), and their remainders. The result is valid
   only if all numbers are below 2^top in magnitude: then no lane leaves the binade of its constant. `s - a[l]` and `t -
   b[l]` are exact, and so are the remainders ("fast two-sum": Dekker 1971). LANES lanes are several vectors, so that
   the additions of one do not wait for those of another. */
CLONES static void fold(const Number *x, double *remainder, int n, int top, Round *result) {
    double a[LANES], b[LANES];
    const double a_constant = fold_constant(top + ROOM), b_constant = fold_constant(top + ROOM - STEP);
    uint64_t nonzero = 0, first = 0, second = 0;
    int64_t largest = 0;
    for (int l = 0; l < LANES; l++) a[l] = a_constant, b[l] = b_constant;
    for (const Number *end = x + n; x < end; x += LANES, remainder += LANES)
        for (int l = 0; l < LANES; l++) {
            int64_t magnitude = (int64_t)(bits_of(x[l]) & ~SIGN);
            double s = a[l] + x[l], r = x[l] - (s - a[l]), t = b[l] + r;
            r -= t - b[l];
            largest = magnitude > largest ? magnitude : largest;
            nonzero |= bits_of(r) & ~SIGN;
            remainder[l] = r;
            a[l] = s;
            b[l] = t;
        }
    for (int l = 0; l < LANES; l++) {
        first += bits_of(a[l]) - bits_of(a_constant);
        second += bits_of(b[l]) - bits_of(b_constant);
    }
    *result = (Round){(int64_t)first, (int64_t)second, (int)(largest >> 52) - 1022, nonzero != 0};
}

/* Adds a block whose numbers are expected to be below 2^top; returns the actual exponent bound, at least LOWEST. */
static int add_block(Sum *sum, const Number *x, int n, int top) {
    double remainder[BLOCK];
    Round result;
    fold(x, remainder, n, top, &result);
    int bound = result.bound > LOWEST ? result.bound : LOWEST;
    if (bound > HIGHEST) {
        add_numbers(sum, x, n);
        return LOWEST;
    }
    if (bound > top) fold(x, remainder, n, top = bound, &result);  /* the expectation was wrong: fold again */
    for (int rounds = 1;; rounds++, top -= 2 * STEP) {
        add_integer(sum->limbs, result.first, top - STEP + 1 + ORIGIN);
        add_integer(sum->limbs, result.second, top - 2 * STEP + 1 + ORIGIN);
        if (!result.has_remainder) return bound;
        if (rounds == 2) break;
        fold(remainder, remainder, n, top - 2 * STEP, &result);
    }
    add_numbers(sum, remainder, n);
    return bound;
}

/* Computes p + e = x y exactly: p is the rounded product and e, by a fused multiply-add, its rounding error (Ogita,
   Rump and Oishi, SIAM J. Sci. Comput. 26 (2005) 1955-1988). Returns nonzero if a product is too large or too small for
   that. */
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
    add_block(sum, e, n, bound - 53);  /* a rounding error is at most half of the last of the 53 bits of p */
    sum->top = bound + 2;
}

/* Adds a block. The numbers of the next one are expected to be below four times the bound of this one (+ 2). */
static void add(Sum *sum, const Number *x, const Number *y, int n) {
    if (y)
        add_product_block(sum, x, y, n);
    else
        sum->top = add_block(sum, x, n, sum->top) + 2;
    sum->terms += n;
    if (sum->terms >= MOST_TERMS) propagate_carries(sum);
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
    propagate_carries(&sum);
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
    propagate_carries(&sum);
}
