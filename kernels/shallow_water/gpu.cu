// The shallow-water step: a block processes a strip of columns row by row, one thread per column. Every value of p, u,
// v and the old level is read from memory once, and every new value is written once: 96 bytes per cell.
//
// Rows of the current level and their fluxes are in shared memory, three of each, so that one barrier per row
// suffices: no row is overwritten before the barrier after its last use. Each flux is computed once. Loads are issued
// one row ahead, so that the 1024 threads of a multiprocessor have 24 to 48 KB in flight; bandwidth times latency is
// about 15 KB on an H200. Pointers advance by rows and are equal in all threads of a block, so they are in uniform
// registers, and a thread needs at most 64 registers. A row takes about 290 instructions per thread, 71 of them FP64:
// 0.4 of the instructions that a multiprocessor issues while memory delivers the row. Two-dimensional tiles would need
// two barriers and compute four edges twice; strips compute one row in `depth` and one column in 256 twice.
#include "formulas.h"

constexpr unsigned WIDTH = 256;  // maximum threads per block

// The fluxes of column c, from p, u, v of its two rows and of the column to the east.
static __device__ __forceinline__ void fluxes(const double (*row0)[WIDTH + 2], const double (*row1)[WIDTH + 2],
                                              double (*to)[WIDTH + 1], unsigned c, double fsdx, double fsdy)
{
    const double p0 = row0[0][c], p0_e = row0[0][c + 1], p1 = row1[0][c], p1_e = row1[0][c + 1];
    const double u0 = row0[1][c], u1 = row1[1][c], u1_e = row1[1][c + 1];
    const double v0 = row0[2][c], v0_e = row0[2][c + 1], v1_e = row1[2][c + 1];
    DECLARE_FLUXES(double);
    to[0][c] = cu, to[1][c] = cv, to[2][c] = z, to[3][c] = h;
}

// Pointers are to the first elements; `_row` is a row stride in elements; a block has `depth` rows. See the package.
extern "C" __global__ void __launch_bounds__(WIDTH, 4) shallow_water(
    double* new_p, double* new_u, double* new_v, const double* level_p, const double* level_u, const double* level_v,
    double* old_p, double* old_u, double* old_v,
    long long new_p_row, long long new_u_row, long long new_v_row, long long level_p_row, long long level_u_row,
    long long level_v_row, long long old_p_row, long long old_u_row, long long old_v_row,
    long long rows, long long columns, long long depth,
    double t8, double tx, double ty, double fsdx, double fsdy, double alpha, int first)
{
    __shared__ double level[3][3][WIDTH + 2];  // column 0 is the one before the strip
    __shared__ double flux[3][4][WIDTH + 1];
    const long long i0 = blockIdx.y * depth, j0 = blockIdx.x * (long long)blockDim.x;
    const int count = (int)min(depth, rows - i0);
    const unsigned t = threadIdx.x, wide = (unsigned)min((long long)blockDim.x, columns - j0);

    // Thread t loads column t + 1. The first six threads also load p, u and v of the columns on both sides of the
    // strip. If the region has fewer columns than the block, the other threads load the last column again.
    const unsigned mine = min(t, wide) + 1, brought = t % 3, beside = t < 3 ? 0 : wide + 1;
    const unsigned side_column = t < 3 ? 0 : blockDim.x + 1;
    double ahead_p, ahead_u, ahead_v, ahead_beside = 0.;
    auto fetch = [&]() {
        ahead_p = level_p[mine], ahead_u = level_u[mine], ahead_v = level_v[mine];
        if (t < 6) ahead_beside = (brought == 0 ? level_p : brought == 1 ? level_u : level_v)[beside];
        level_p += level_p_row, level_u += level_u_row, level_v += level_v_row;
    };
    auto keep = [&](int slot) {
        level[slot][0][t + 1] = ahead_p, level[slot][1][t + 1] = ahead_u, level[slot][2][t + 1] = ahead_v;
        if (t < 6) level[slot][brought][side_column] = ahead_beside;
    };

    level_p += i0 * level_p_row + j0, level_u += i0 * level_u_row + j0, level_v += i0 * level_v_row + j0;
    new_p += (i0 - 1) * new_p_row + j0, new_u += (i0 - 1) * new_u_row + j0, new_v += (i0 - 1) * new_v_row + j0;
    old_p += (i0 - 1) * old_p_row + j0, old_u += (i0 - 1) * old_u_row + j0, old_v += (i0 - 1) * old_v_row + j0;
    for (int i = 0; i < 2; ++i) fetch(), keep(i);
    fetch();
    __syncthreads();

    // Pass i computes the fluxes from rows i and i + 1 of the current level and, except the first, a row of the new
    // level.
    for (int i = 0; i <= count; ++i) {
        const int slot = i % 3, next = (i + 1) % 3, other = (i + 2) % 3;  // slots of rows i, i + 1, and i - 1 or i + 2
        const bool writes = i > 0 && t < wide;
        double p = 0., u = 0., v = 0.;
        if (writes) p = old_p[t], u = old_u[t], v = old_v[t];
        for (unsigned c = t ? t + 1 : 0; c <= t + 1; ++c)  // thread 0 also computes column 0
            fluxes(level[slot], level[next], flux[slot], c, fsdx, fsdy);
        if (i < count) keep(other);
        if (i + 1 < count) fetch();
        __syncthreads();
        if (writes) {
            const double (*here)[WIDTH + 1] = flux[slot], (*up)[WIDTH + 1] = flux[other];
            const double cu = here[0][t + 1], cv = here[1][t + 1], h = here[3][t + 1];
            const double cu_w = here[0][t], cv_w = here[1][t], z_w = here[2][t], h_w = here[3][t];
            const double up_cu = up[0][t + 1], up_cv = up[1][t + 1], up_z = up[2][t + 1], up_h = up[3][t + 1];
            const double up_cu_w = up[0][t], up_cv_w = up[1][t], up_z_w = up[2][t];
            const double p0 = level[slot][0][t + 1], u0 = level[slot][1][t + 1], v0 = level[slot][2][t + 1];
            DECLARE_NEXT(double);
            new_p[t] = next_p, new_u[t] = next_u, new_v[t] = next_v;
            old_p[t] = first ? p0 : FILTERED(next_p, p0, p);
            old_u[t] = first ? u0 : FILTERED(next_u, u0, u);
            old_v[t] = first ? v0 : FILTERED(next_v, v0, v);
        }
        new_p += new_p_row, new_u += new_u_row, new_v += new_v_row;
        old_p += old_p_row, old_u += old_u_row, old_v += old_v_row;
    }
}
