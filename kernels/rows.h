// Iteration over the elements of strided rows. The elements are numbered row by row, and the threads of a grid (or its
// blocks) take them in turn: thread t of T has the elements t, t + T, t + 2T, … Adjacent threads therefore read
// adjacent elements.

using u64 = unsigned long long;

// A value that is linear in row and column, such as an offset: its increments per row and per column, mod 2^64.
struct Linear {
    u64 per_row, per_column;
};

// Iterates over the elements of one thread, and over N linear values at these elements: `value[n]` is value n at the
// present element, and `left` the number of elements left. The step from element to element is always `threads`
// elements: `step_rows` rows and `step_columns` columns, plus one row and minus all columns if that passes the end of
// the row. So an advance needs no division: it adds step[n] to a value, and wrap[n] if the row ends.
template <int N> struct Walk {
    u64 value[N], step[N], wrap[N];
    unsigned int column, columns, step_columns;  // at most 2^31 columns
    int left;

    __device__ Walk(unsigned int columns, u64 elements, const Linear (&values)[N])
        : Walk(columns, elements, values, (u64)blockIdx.x * blockDim.x + threadIdx.x, (u64)gridDim.x * blockDim.x) {}

    // The same for worker number `thread` of `threads`, for example a block.
    __device__ Walk(unsigned int columns, u64 elements, const Linear (&values)[N], u64 thread, u64 threads)
        : columns(columns) {
        left = thread < elements ? (int)((elements - thread - 1) / threads) + 1 : 0;
        column = (unsigned int)(thread % columns);
        step_columns = (unsigned int)(threads % columns);
        const u64 step_rows = threads / columns;
        for (int n = 0; n < N; ++n) {
            value[n] = thread / columns * values[n].per_row + column * values[n].per_column;
            step[n] = step_rows * values[n].per_row + step_columns * values[n].per_column;
            wrap[n] = values[n].per_row - columns * values[n].per_column;
        }
    }

    // Advances to the next element of this thread.
    __device__ void advance() {
        column += step_columns;
        const bool row_ends = column >= columns;
        if (row_ends) column -= columns;
        for (int n = 0; n < N; ++n) value[n] += step[n] + (row_ends ? wrap[n] : 0);
    }
};
