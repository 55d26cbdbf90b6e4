// Iteration over the elements of strided rows. The threads of a grid (or its blocks) share the elements cyclically,
// row by row, so that adjacent threads read adjacent elements: thread t of T has the elements t, t + T, t + 2T, …

using u64 = unsigned long long;

// A value that is linear in row and column, such as an address: increments per row and per column, mod 2^64.
struct Line {
    u64 pitch, unit;
};

// Iterates over N lines; `place[n]` is the current value of line n, and `left` the number of elements left for this
// thread. An advance needs no division: one increment, and a second one if that passes the end of the row.
template <int N> struct Walk {
    u64 place[N], jump[N], back[N];
    unsigned int column, columns, across;  // at most 2^31 columns
    int left;

    __device__ Walk(unsigned int columns, u64 elements, const Line (&lines)[N])
        : Walk(columns, elements, lines, (u64)blockIdx.x * blockDim.x + threadIdx.x, (u64)gridDim.x * blockDim.x) {}

    // The same for worker number `thread` of `threads`, for example a block.
    __device__ Walk(unsigned int columns, u64 elements, const Line (&lines)[N], u64 thread, u64 threads)
        : columns(columns) {
        left = thread < elements ? (int)((elements - thread - 1) / threads) + 1 : 0;
        column = (unsigned int)(thread % columns);
        across = (unsigned int)(threads % columns);
        for (int n = 0; n < N; ++n) {
            place[n] = thread / columns * lines[n].pitch + column * lines[n].unit;
            jump[n] = threads / columns * lines[n].pitch + across * lines[n].unit;
            back[n] = lines[n].pitch - columns * lines[n].unit;
        }
    }

    // Advances to the next element of this thread.
    __device__ void go_on() {
        column += across;
        const bool beyond = column >= columns;
        if (beyond) column -= columns;
        for (int n = 0; n < N; ++n) place[n] += jump[n] + (beyond ? back[n] : 0);
    }
};
