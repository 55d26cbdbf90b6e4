// The shallow-water step: one thread a cell. Each computes the fluxes about its cell for itself, from
// values that its neighbours have brought into the cache; only the 96 bytes a cell go to and from memory.

// One array and its elements from row to row, at the cell in hand: a(1, 0) is the cell one row on.
struct At {
    const double* cell;
    long long row;
    __device__ double operator()(int i, int j) const { return cell[i * row + j]; }
};

struct Fluxes {
    At p, u, v;
    double fsdx, fsdy;

    __device__ double cu(int i, int j) const { return .5 * (p(i, j) + p(i - 1, j)) * u(i, j); }
    __device__ double cv(int i, int j) const { return .5 * (p(i, j) + p(i, j - 1)) * v(i, j); }
    __device__ double z(int i, int j) const {
        return (fsdx * (v(i, j) - v(i - 1, j)) - fsdy * (u(i, j) - u(i, j - 1)))
            / (p(i - 1, j - 1) + p(i, j - 1) + p(i, j) + p(i - 1, j));
    }
    __device__ double h(int i, int j) const {
        return p(i, j) + .25 * (u(i + 1, j) * u(i + 1, j) + u(i, j) * u(i, j)
            + v(i, j + 1) * v(i, j + 1) + v(i, j) * v(i, j));
    }
};

extern "C" __global__ void shallow_water(
    double* new_p, double* new_u, double* new_v, const double* p, const double* u, const double* v,
    double* old_p, double* old_u, double* old_v,
    long long new_p_row, long long new_u_row, long long new_v_row, long long p_row, long long u_row,
    long long v_row, long long old_p_row, long long old_u_row, long long old_v_row,
    long long rows, long long columns, double tdt, double alpha, double dx, double dy, int first)
{
    const double t8 = tdt / 8., tx = tdt / dx, ty = tdt / dy;
    const long long j = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    const long long step = (long long)gridDim.y * blockDim.y;
    if (j >= columns) return;
    for (long long i = blockIdx.y * (long long)blockDim.y + threadIdx.y; i < rows; i += step) {
        const At at_p = {p + (i + 1) * p_row + j + 1, p_row};
        const At at_u = {u + (i + 1) * u_row + j + 1, u_row};
        const At at_v = {v + (i + 1) * v_row + j + 1, v_row};
        const Fluxes f = {at_p, at_u, at_v, 4. / dx, 4. / dy};
        const double z = f.z(0, 0), h = f.h(0, 0);
        const double cu = f.cu(0, 0), cu_s = f.cu(1, 0), cv = f.cv(0, 0), cv_e = f.cv(0, 1);
        double* const before[3] = {old_p + i * old_p_row + j, old_u + i * old_u_row + j, old_v + i * old_v_row + j};
        double* const after[3] = {new_p + i * new_p_row + j, new_u + i * new_u_row + j, new_v + i * new_v_row + j};
        const double now[3] = {at_p(0, 0), at_u(0, 0), at_v(0, 0)};
        const double next[3] = {
            *before[0] - tx * (cu_s - cu) - ty * (cv_e - cv),
            *before[1] + t8 * (f.z(0, 1) + z) * (cv_e + f.cv(-1, 1) + f.cv(-1, 0) + cv) - tx * (h - f.h(-1, 0)),
            *before[2] - t8 * (f.z(1, 0) + z) * (cu_s + cu + f.cu(0, -1) + f.cu(1, -1)) - ty * (h - f.h(0, -1)),
        };
        for (int q = 0; q < 3; ++q) {
            *after[q] = next[q];
            *before[q] = first ? now[q] : now[q] + alpha * (next[q] - 2. * now[q] + *before[q]);
        }
    }
}
