// The router, the sorting of tokens by expert, and products with the experts' matrices.

// A total order of floats, as bits: NaN beyond infinity.
__device__ inline int order_of(float x) {
    int bits = __float_as_int(x);
    return bits ^ ((bits >> 31) & 0x7fffffff);
}

// The warp's best of (order, index): the greatest, of equals the lowest index.
__device__ inline void warp_best(int &order, u32 &index) {
    for (int offset = 16; offset > 0; offset /= 2) {
        int other = __shfl_xor_sync(0xffffffff, order, offset);
        u32 at = __shfl_xor_sync(0xffffffff, index, offset);
        if (other > order || (other == order && at < index)) {
            order = other;
            index = at;
        }
    }
}

#define NONE 0xffffffff
#define LEAST ((int)0x80000000)

// A warp a token. Shared: the ranked affinities of all experts, the ranks of groups, the chosen. Affinities are kept for
// the gradient. The choice is made as on the CPU: groups by their best (of sigmoids: the sum of the two best), then as many
// passes as experts are chosen, and the chosen ascend. A replayed choice is taken as it is.
KERNEL route(
    const float *logits, const float *bias, const u32 *replayed, float *affinities, u32 *chosen, float *weights,
    u32 experts, u32 k, u32 groups, u32 groups_kept, u32 sigmoids, u32 normalize, float scale
) {
    extern __shared__ float shared[];
    float *ranked = shared, *ranks = shared + experts;
    u32 *picks = (u32 *)(ranks + groups);
    u32 lane = threadIdx.x;
    const float *z = logits + (u64)blockIdx.x * experts;
    float *a = affinities + (u64)blockIdx.x * experts;
    if (sigmoids) {
        for (u32 e = lane; e < experts; e += 32) a[e] = sigmoid(z[e]);
    } else {
        float most = -INFINITE, sum = 0.0f;
        for (u32 e = lane; e < experts; e += 32) most = fmaxf(most, z[e]);
        most = warp_max(most);
        for (u32 e = lane; e < experts; e += 32) sum += expf(z[e] - most);
        sum = warp_sum(sum);
        for (u32 e = lane; e < experts; e += 32) a[e] = expf(z[e] - most) / sum;
    }
    for (u32 e = lane; e < experts; e += 32) ranked[e] = bias ? a[e] + bias[e] : a[e];
    __syncwarp();
    if (groups_kept < groups) {
        u32 width = experts / groups;
        for (u32 g = lane; g < groups; g += 32) {
            float first = -INFINITE, second = -INFINITE;
            for (u32 e = g * width; e < (g + 1) * width; e++) {
                float x = ranked[e];
                if (x > first) {
                    second = first;
                    first = x;
                } else {
                    second = fmaxf(second, x);
                }
            }
            ranks[g] = sigmoids && width > 1 ? first + second : first;
        }
        __syncwarp();
        for (u32 g = lane; g < groups; g += 32) {
            u32 better = 0;
            int own = order_of(ranks[g]);
            for (u32 other = 0; other < groups; other++) {
                int theirs = order_of(ranks[other]);
                better += theirs > own || (theirs == own && other < g);
            }
            if (better >= groups_kept) {
                for (u32 e = g * width; e < (g + 1) * width; e++) ranked[e] = -INFINITE;
            }
        }
        __syncwarp();
    }
    for (u32 place = 0; place < k && !replayed; place++) {
        int best = LEAST;
        u32 index = NONE;
        for (u32 e = lane; e < experts; e += 32) {
            bool free = true;
            for (u32 p = 0; p < place; p++) free &= picks[p] != e;
            int order = order_of(ranked[e]);
            if (free && (index == NONE || order > best)) {
                best = order;
                index = e;
            }
        }
        warp_best(best, index);
        if (lane == 0) picks[place] = index;
        __syncwarp();
    }
    if (lane == 0) {
        for (u32 i = 0; i < k && replayed; i++) picks[i] = replayed[(u64)blockIdx.x * k + i];
        for (u32 i = 1; i < k && !replayed; i++) {
            u32 expert = picks[i], j = i;
            for (; j > 0 && picks[j - 1] > expert; j--) picks[j] = picks[j - 1];
            picks[j] = expert;
        }
        float sum = 1.0f;
        if (normalize) {
            sum = 0.0f;
            for (u32 i = 0; i < k; i++) sum += a[picks[i]];
            sum += 1e-20f;
        }
        for (u32 i = 0; i < k; i++) {
            chosen[(u64)blockIdx.x * k + i] = picks[i];
            weights[(u64)blockIdx.x * k + i] = a[picks[i]] / sum * scale;
        }
    }
}

// A warp a token.
KERNEL route_backward(
    const float *affinities, const u32 *chosen, const float *grad, float *dx,
    u32 experts, u32 k, u32 sigmoids, u32 normalize, float scale
) {
    u32 lane = threadIdx.x;
    const float *a = affinities + (u64)blockIdx.x * experts, *g = grad + (u64)blockIdx.x * k;
    const u32 *picks = chosen + (u64)blockIdx.x * k;
    float *d = dx + (u64)blockIdx.x * experts;
    float sum = 1.0f, mean = 0.0f, inner = 0.0f;
    if (normalize) {
        sum = 0.0f;
        for (u32 i = 0; i < k; i++) sum += a[picks[i]];
        sum += 1e-20f;
        for (u32 i = 0; i < k; i++) mean += g[i] * a[picks[i]] / sum;
    }
    if (!sigmoids) {
        for (u32 i = 0; i < k; i++) inner += (g[i] - mean) / sum * scale * a[picks[i]];
    }
    for (u32 e = lane; e < experts; e += 32) {
        float slope = 0.0f;
        for (u32 i = 0; i < k; i++) {
            if (picks[i] == e) slope = (g[i] - mean) / sum * scale;
        }
        d[e] = sigmoids ? slope * a[e] * (1.0f - a[e]) : a[e] * (slope - inner);
    }
}

// How many slots chose the block's expert.
KERNEL count_experts(const u32 *chosen, u32 *counts, u32 slots) {
    __shared__ u32 parts[256];
    u32 count = 0;
    for (u32 slot = threadIdx.x; slot < slots; slot += 256) count += chosen[slot] == blockIdx.x;
    parts[threadIdx.x] = count;
    for (u32 width = 128; width > 0; width /= 2) {
        __syncthreads();
        if (threadIdx.x < width) parts[threadIdx.x] += parts[threadIdx.x + width];
    }
    if (threadIdx.x == 0) counts[blockIdx.x] = parts[0];
}

// Gives the slots of the block's expert their pairs, in ascending order: a counting sort.
KERNEL sort_by_expert(const u32 *chosen, const u32 *counts, u32 *offsets, u32 *rows, u32 *pairs, u32 slots, u32 k) {
    __shared__ u32 warps[8];
    u32 expert = blockIdx.x, next = 0, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    for (u32 e = 0; e < expert; e++) next += counts[e];
    if (threadIdx.x == 0) {
        offsets[expert] = next;
        if (expert == gridDim.x - 1) offsets[expert + 1] = next + counts[expert];
    }
    for (u32 first = 0; first < slots; first += 256) {
        u32 slot = first + threadIdx.x;
        bool mine = slot < slots && chosen[slot] == expert;
        u32 votes = __ballot_sync(0xffffffff, mine);
        if (lane == 0) warps[warp] = __popc(votes);
        __syncthreads();
        u32 before = next, all = 0;
        for (u32 w = 0; w < 8; w++) {
            if (w < warp) before += warps[w];
            all += warps[w];
        }
        if (mine) {
            u32 pair = before + __popc(votes & ((1u << lane) - 1));
            rows[pair] = slot / k;
            pairs[slot] = pair;
        }
        next += all;
        __syncthreads();
    }
}

// Products of tiles: 32 rows by 64 columns by steps of 32, each of 256 threads having 2 by 4 sums.
#define ROWS 32
#define COLUMNS 64
#define DEPTH 32

// c[m][n] (+)= sum over k of a(m, k) * b(n, k), k ascending; `to` writes.
template <typename A, typename B, typename To>
__device__ void tile(u32 m0, u32 m_end, u32 n0, u32 n_end, u32 depth, A a, B b, To to) {
    __shared__ float left[DEPTH][ROWS + 1], right[DEPTH][COLUMNS + 1];
    u32 row = threadIdx.x / 16 * 2, column = threadIdx.x % 16;
    float sums[2][4] = {};
    for (u32 k0 = 0; k0 < depth; k0 += DEPTH) {
        for (u32 i = threadIdx.x; i < ROWS * DEPTH; i += 256) {
            u32 m, k;
            a.place(i, ROWS, m, k);
            left[k][m] = m0 + m < m_end && k0 + k < depth ? a(m0 + m, k0 + k) : 0.0f;
        }
        for (u32 i = threadIdx.x; i < COLUMNS * DEPTH; i += 256) {
            u32 n, k;
            b.place(i, COLUMNS, n, k);
            right[k][n] = n0 + n < n_end && k0 + k < depth ? b(n0 + n, k0 + k) : 0.0f;
        }
        __syncthreads();
#pragma unroll 8
        for (u32 k = 0; k < DEPTH; k++) {
            float x0 = left[k][row], x1 = left[k][row + 1];
            for (u32 j = 0; j < 4; j++) {
                float y = right[k][column + 16 * j];
                sums[0][j] = fmaf(x0, y, sums[0][j]);
                sums[1][j] = fmaf(x1, y, sums[1][j]);
            }
        }
        __syncthreads();
    }
    for (u32 i = 0; i < 2; i++) {
        for (u32 j = 0; j < 4; j++) {
            u32 m = m0 + row + i, n = n0 + column + 16 * j;
            if (m < m_end && n < n_end) to(m, n, sums[i][j]);
        }
    }
}

// Element (i, k) of a matrix with rows of consecutive k. Neighbouring threads read neighbouring k.
template <typename T> struct ByRow {
    const T *x;
    u64 row;
    __device__ void place(u32 i, u32, u32 &outer, u32 &k) const {
        outer = i / DEPTH;
        k = i % DEPTH;
    }
    __device__ float operator()(u32 i, u32 k) const { return widened(x[i * row + k]); }
};

// The same of its transpose: neighbouring threads read neighbouring i.
template <typename T> struct ByColumn {
    const T *x;
    u64 row;
    __device__ void place(u32 i, u32 width, u32 &outer, u32 &k) const {
        outer = i % width;
        k = i / width;
    }
    __device__ float operator()(u32 i, u32 k) const { return widened(x[k * row + i]); }
};

struct Store {
    float *c;
    u64 row;
    __device__ void operator()(u32 m, u32 n, float x) const { c[m * row + n] = x; }
};

struct Add {
    float *c;
    u64 row;
    __device__ void operator()(u32 m, u32 n, float x) const { c[m * row + n] += x; }
};

// The expert and the pairs of the block's tile of rows: tiles are counted expert after expert. There are more blocks than
// tiles, since the host does not know how the pairs fall.
__device__ inline bool find_tile(const u32 *offsets, u32 experts, u32 &expert, u32 &first, u32 &end) {
    __shared__ u32 found[3];
    if (threadIdx.x == 0) {
        u32 left = blockIdx.y, start = offsets[0];
        found[0] = NONE;
        for (u32 e = 0; e < experts; e++) {
            u32 stop = offsets[e + 1], tiles = (stop - start + ROWS - 1) / ROWS;
            if (left < tiles) {
                found[0] = e;
                found[1] = start + left * ROWS;
                found[2] = stop;
                break;
            }
            left -= tiles;
            start = stop;
        }
    }
    __syncthreads();
    expert = found[0];
    first = found[1];
    end = found[2];
    return expert != NONE;
}

// y[p][n] = sum over k of x[p][k] * w[e][n][k]
template <typename T>
__device__ void grouped(const float *x, const T *w, const u32 *offsets, float *y, u32 experts, u32 n, u32 k) {
    u32 expert, first, end;
    if (!find_tile(offsets, experts, expert, first, end)) return;
    const T *own = w + (u64)expert * n * k;
    tile(first, end, blockIdx.x * COLUMNS, n, k, ByRow<float>{x, k}, ByRow<T>{own, k}, Store{y, n});
}
KERNEL grouped_f32(const float *x, const float *w, const u32 *offsets, float *y, u32 experts, u32 n, u32 k) {
    grouped(x, w, offsets, y, experts, n, k);
}
KERNEL grouped_bf16(const float *x, const u16 *w, const u32 *offsets, float *y, u32 experts, u32 n, u32 k) {
    grouped(x, w, offsets, y, experts, n, k);
}

// dx[p][k] = sum over n of dy[p][n] * w[e][n][k]
template <typename T>
__device__ void grouped_input(const float *dy, const T *w, const u32 *offsets, float *dx, u32 experts, u32 n, u32 k) {
    u32 expert, first, end;
    if (!find_tile(offsets, experts, expert, first, end)) return;
    const T *own = w + (u64)expert * n * k;
    tile(first, end, blockIdx.x * COLUMNS, k, n, ByRow<float>{dy, n}, ByColumn<T>{own, k}, Store{dx, k});
}
KERNEL grouped_input_f32(const float *dy, const float *w, const u32 *offsets, float *dx, u32 experts, u32 n, u32 k) {
    grouped_input(dy, w, offsets, dx, experts, n, k);
}
KERNEL grouped_input_bf16(const float *dy, const u16 *w, const u32 *offsets, float *dx, u32 experts, u32 n, u32 k) {
    grouped_input(dy, w, offsets, dx, experts, n, k);
}

// dw[e][n][k] += sum over the expert's pairs of dy[p][n] * x[p][k]
KERNEL grouped_weight(const float *dy, const float *x, const u32 *offsets, float *dw, u32 n, u32 k) {
    u32 expert = blockIdx.z, first = offsets[expert], count = offsets[expert + 1] - first;
    if (count == 0) return;
    ByColumn<float> left{dy + (u64)first * n, n}, right{x + (u64)first * k, k};
    tile(blockIdx.y * ROWS, n, blockIdx.x * COLUMNS, k, count, left, right, Add{dw + (u64)expert * n * k, k});
}
