/* Kernels' C on arrays at any address and on the numbers at the ends of their ranges, compiled with
   -fsanitize=undefined: ends with 1 where an address changes a result, or where anything is undefined. */
#include <stdio.h>
#include <stdlib.h>

#include "digest/cpu.h"
#include "exact_sum/cpu.h"
#include "keys/cpu.h"

enum { COLUMNS = 2500, ROWS = 3, COUNT = ROWS * COLUMNS };

static double value(int i, double scale) { return scale * ((i * 2654435761u >> 8) - 4e6) * (i % 3 ? 1 : -3); }

static int sums_differ(double scale, int products)
{
    static double x[COUNT], y[COUNT];
    static char moved[2][sizeof x + 8];
    int64_t here[LIMBS + 3] = {0}, there[LIMBS + 3] = {0};
    for (int i = 0; i < COUNT; i++) x[i] = value(i, scale), y[i] = value(i + 7, 1);
    memcpy(moved[0] + 3, x, sizeof x);
    memcpy(moved[1] + 5, y, sizeof y);
    const int64_t step = COLUMNS * sizeof *x;
    accumulate_rows((char *)x, products ? (char *)y : NULL, step, step, ROWS, COLUMNS, here);
    accumulate_rows(moved[0] + 3, products ? moved[1] + 5 : NULL, step, step, ROWS, COLUMNS, there);
    return memcmp(here, there, sizeof here) != 0;
}

static int digests_differ(void)
{
    static uint64_t bits[COUNT];
    static char moved[sizeof bits + 8];
    for (int i = 0; i < COUNT; i++) bits[i] = (uint64_t)i * MULTIPLIER_0;
    memcpy(moved + 1, bits, sizeof bits);
    return digest_row(bits, 5, COUNT) != digest_row((const Word *)(moved + 1), 5, COUNT);
}

/* The last keys of a text, behind which there is nothing. */
static int keys_differ(void)
{
    for (int size = 0; size <= 40; size++) {
        uint8_t *text = malloc(size + 1), room[64] = {0};
        struct key last, same;
        for (int i = 0; i < size; i++) text[i] = room[i] = (uint8_t)('A' + i);
        make_key(&last, text, size, text + size, 1);
        make_key(&same, room, size, room + sizeof room, 1);
        free(text);
        if (last.hash != same.hash) return 1;
    }
    return 0;
}

int main(void)
{
    const double scales[] = {1, 0x1p-1060, 0x1p990, 0x1p900};
    for (int i = 0; i < 8; i++)
        if (sums_differ(scales[i / 2], i % 2)) return printf("sums, scale %g\n", scales[i / 2]), 1;
    if (digests_differ()) return puts("digests"), 1;
    if (keys_differ()) return puts("keys"), 1;
    return 0;
}
