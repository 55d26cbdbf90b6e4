// Copies strided boxes of elements in one launch: packs and unpacks the halo exchange.
//
// A box is a row of `boxes`: its address in the source and in the target, the bytes of an element, the number of
// elements, and for each axis its length and its strides in bytes in the source and in the target.
// blockIdx.x is the box; the blocks along y divide its elements among themselves.
enum { SOURCE, TARGET, ITEMSIZE, ELEMENTS, AXES };  // columns; three for each axis from AXES on

template <class T>
static __device__ __forceinline__ void copy(unsigned long long from, unsigned long long to, int words = 1) {
    for (int word = 0; word < words; ++word) ((T*)to)[word] = ((const T*)from)[word];
}

extern "C" __global__ void copy_boxes(const unsigned long long* boxes, int axes) {
    const unsigned long long* box = boxes + (unsigned long long)blockIdx.x * (AXES + 3 * axes);
    const unsigned long long* last_axis = box + AXES + 3 * (axes - 1);
    unsigned long long step = (unsigned long long)gridDim.y * blockDim.x;
    for (unsigned long long i = (unsigned long long)blockIdx.y * blockDim.x + threadIdx.x; i < box[ELEMENTS]; i += step) {
        unsigned long long from = box[SOURCE], to = box[TARGET], rest = i;
        const unsigned long long* axis = last_axis;
        for (int left = axes; left > 0; --left, axis -= 3) {
            unsigned long long k = rest % axis[0];
            rest /= axis[0];
            from += k * axis[1];
            to += k * axis[2];
        }
        switch (box[ITEMSIZE]) {
            case 1: copy<unsigned char>(from, to); break;
            case 2: copy<unsigned short>(from, to); break;
            case 4: copy<unsigned int>(from, to); break;
            case 8: copy<unsigned long long>(from, to); break;
            default: copy<unsigned long long>(from, to, 2);
        }
    }
}
