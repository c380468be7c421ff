// What all kernels share. Everything is f32 but for matrices of parameters, which may be bf16 (as their 16 bits), and numbers
// of rows, which are u32. No kernel adds by atomics: each sum has one order, so that a run repeats to the bit.

typedef unsigned int u32;
typedef unsigned short u16;
typedef unsigned long long u64;

#define KERNEL extern "C" __global__ void
#define INFINITE __int_as_float(0x7f800000)

__device__ inline float widened(u16 x) { return __uint_as_float((u32)x << 16); }
__device__ inline float widened(float x) { return x; }

// To the nearest bf16, ties to even.
__device__ inline u16 narrowed(float x) {
    u32 bits = __float_as_uint(x);
    if ((bits & 0x7fffffff) > 0x7f800000) return (u16)((bits >> 16) | 0x40);
    return (u16)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

__device__ inline float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

__device__ inline float warp_sum(float x) {
    for (int offset = 16; offset > 0; offset /= 2) x += __shfl_xor_sync(0xffffffff, x, offset);
    return x;
}

__device__ inline float warp_max(float x) {
    for (int offset = 16; offset > 0; offset /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffff, x, offset));
    return x;
}

// Over a block of whole warps, at most 32. All threads receive it.
__device__ inline float block_sum(float x) {
    __shared__ float parts[32];
    x = warp_sum(x);
    __syncthreads();
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
    __syncthreads();
    return warp_sum(threadIdx.x % 32 < blockDim.x / 32 ? parts[threadIdx.x % 32] : 0.0f);
}

__device__ inline float block_max(float x) {
    __shared__ float parts[32];
    x = warp_max(x);
    __syncthreads();
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
    __syncthreads();
    return warp_max(threadIdx.x % 32 < blockDim.x / 32 ? parts[threadIdx.x % 32] : -INFINITE);
}
