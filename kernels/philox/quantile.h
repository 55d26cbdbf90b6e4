// The quantile of the standard normal distribution in CUDA C, by the operations of anyrank.random and the logarithm of
// anyrank.elementary (see there for the sources). Only exact products are computed differently: a fused multiply-add
// returns the error of a product, with the same bits as Dekker's method.

struct sum2 {  // an unevaluated sum of two doubles
    double high, low;
};

// Coefficients of numerator and denominator, alternating, and the constants of the logarithm.
struct constants {
    double centre[16], tail[16], far_tail[16];
    sum2 artanh[7], ln2, logs[93];
};

__device__ __forceinline__ sum2 two_sum(double a, double b) {
    const double s = a + b, t = s - a;
    return {s, (a - (s - t)) + (b - t)};
}

__device__ __forceinline__ sum2 quick_two_sum(double a, double b) {
    const double s = a + b;
    return {s, b - (s - a)};
}

__device__ __forceinline__ sum2 two_product(double a, double b) {
    const double p = a * b;
    return {p, __fma_rn(a, b, -p)};
}

__device__ __forceinline__ sum2 operator+(sum2 a, sum2 b) {
    const sum2 s = two_sum(a.high, b.high);
    return quick_two_sum(s.high, s.low + (a.low + b.low));
}

__device__ __forceinline__ sum2 operator*(sum2 a, sum2 b) {
    const sum2 p = two_product(a.high, b.high);
    return quick_two_sum(p.high, p.low + (a.high * b.low + a.low * b.high));
}

__device__ __forceinline__ sum2 operator/(sum2 a, sum2 b) {
    const double q = a.high / b.high;
    const sum2 p = two_product(q, b.high);
    return quick_two_sum(q, (((a.high - p.high) - p.low) + a.low - q * b.low) / b.high);
}

// The logarithm of a normal (not subnormal) number.
__device__ __forceinline__ double logarithm(const constants& constant, double x) {
    const long long bits = __double_as_longlong(x);
    int exponent = (int)(bits >> 52) - 1022;
    double m = __longlong_as_double((bits & 0xFFFFFFFFFFFFFll) | 1022ll << 52);
    if (m < 0.7071067811865476) m = 2 * m, exponent -= 1;
    const double c = rint(128 / m);
    const sum2 product = two_product(m, c), z = two_sum(product.high - 128, product.low);
    const sum2 w = z / (sum2{256.0, 0.0} + z), square = w * w;
    double end = constant.artanh[6].high;
    for (int k = 5; k >= 3; --k) end = end * square.high + constant.artanh[k].high;
    sum2 series = {end, 0.0};
    for (int k = 2; k >= 0; --k) series = constant.artanh[k] + square * series;
    series = constant.logs[(int)c - 90] + sum2{2 * w.high, 2 * w.low} * series;
    return (sum2{(double)exponent, 0.0} * constant.ln2 + series).high;
}

__device__ __forceinline__ double ratio(const double* coefficients, double r) {
    double upper = coefficients[0], lower = coefficients[1];
    for (int i = 2; i < 16; i += 2) upper = upper * r + coefficients[i], lower = lower * r + coefficients[i + 1];
    return upper / lower;
}

// The quantile at ½ + q, for |q| above 0.425.
__device__ __forceinline__ double tail_quantile(const constants& constant, double q) {
    const double r = sqrt(-logarithm(constant, 0.5 - fabs(q)));
    const double size = r <= 5.0 ? ratio(constant.tail, r - 1.6) : ratio(constant.far_tail, r - 5.0);
    return q < 0.0 ? -size : size;
}
