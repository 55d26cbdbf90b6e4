// Walks over the elements of rows that lie some distance apart. All threads of a grid (or all blocks) take them in
// turn, row after row, so that neighbours read neighbours: thread t of T has the elements t, t + T, t + 2T, …

using u64 = unsigned long long;

// What moves along: by `pitch` from row to row and by `unit` from column to column, mod 2^64.
struct Line {
    u64 pitch, unit;
};

// N lines at once; `place[n]` is where line n has come to, and `left` counts the elements that this thread still has.
// Going on takes no division: it is one step, and a second where that ends beyond the row.
template <int N> struct Walk {
    u64 place[N], jump[N], back[N];
    unsigned int column, columns, across;  // at most 2^31 columns
    int left;

    __device__ Walk(unsigned int columns, u64 elements, const Line (&lines)[N])
        : Walk(columns, elements, lines, (u64)blockIdx.x * blockDim.x + threadIdx.x, (u64)gridDim.x * blockDim.x) {}

    // The same for number `thread` of `threads`, which need not be threads.
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

    // To the thread's next element.
    __device__ void go_on() {
        column += across;
        const bool beyond = column >= columns;
        if (beyond) column -= columns;
        for (int n = 0; n < N; ++n) place[n] += jump[n] + (beyond ? back[n] : 0);
    }
};
