/* The arithmetic of one cell. V is the type: vectors of cells in the C sweep, double on the GPU.
 *
 * p0 and p1 are cell j of rows i and i + 1 of the current level, and so on; `_e` is one column to the east, `_w` one to
 * the west. The fluxes are z of row i + 1, column j + 1, cu of row i + 1, column j, h of row i, and cv of row i, column
 * j + 1; `up_` marks those of the previous row. p, u and v are the old level. */

#ifndef SHALLOW_WATER_FORMULAS_H
#define SHALLOW_WATER_FORMULAS_H

#define DECLARE_FLUXES(V)                                                                     \
    const V cu = .5 * (p1 + p0) * u1;                                                         \
    const V cv = .5 * (p0_e + p0) * v0_e;                                                     \
    const V z = (fsdx * (v1_e - v0_e) - fsdy * (u1_e - u1)) / (p0 + p1 + p1_e + p0_e);        \
    const V h = p0 + .25 * (u1 * u1 + u0 * u0 + v0_e * v0_e + v0 * v0)

#define DECLARE_NEXT(V)                                                                       \
    const V next_p = p - tx * (cu - up_cu) - ty * (cv - cv_w);                                \
    const V next_u = u + t8 * (up_z + up_z_w) * (cv + up_cv + up_cv_w + cv_w) - tx * (h - up_h); \
    const V next_v = v - t8 * (z_w + up_z_w) * (cu + up_cu + up_cu_w + cu_w) - ty * (h - h_w)

#define FILTERED(next, now, old) ((now) + alpha * ((next) - 2. * (now) + (old)))

#endif
