// Causal attention over packed sequences, by blocks of keys (Dao, FlashAttention-2, algorithms 1 and 2). The rows of a tile are
// pairs (token, query head) that share one key head: with few key heads a single token fills a tile.

#define TILE 16
#define KEYS 32
#define THREADS 256

// A stretch of one sequence's queries: what the host says of a tile.
struct Work {
    u32 start;  // The segment's first row in the packed tensors.
    u32 len;    // Its number of rows.
    u32 first;  // Forward and dq: the tile's first pair (token * repeats + head). dk and dv: the tile's first key.
    u32 before; // The tokens that the cache held already.
    u32 slot;   // The cache slot.
};

struct Sizes {
    u32 heads, groups, dk, dv;
    u32 k_row, v_row; // From one token's key (value) of a group to the next token's.
    u32 k_group, v_group; // From one group's to the next group's.
    u32 capacity; // Tokens of a cache slot; 0 without a cache.
    float scale;
};

__device__ inline u64 first_token(const Work &work, const Sizes &s) {
    return s.capacity ? (u64)work.slot * s.capacity : work.start;
}

// scores[i][j] = sum over d of a[rows a of i][d] * b[row b of j][d], for TILE by KEYS of them. An a or b of null is a row of
// zeros.
__device__ inline void products(
    const float *const *a, const float *const *b, u32 width, float (*scores)[KEYS + 1],
    float (*left)[33], float (*right)[33]
) {
    u32 i = threadIdx.x / 16, j = threadIdx.x % 16;
    float sum0 = 0.0f, sum1 = 0.0f;
    for (u32 d0 = 0; d0 < width; d0 += 32) {
        __syncthreads();
        for (u32 x = threadIdx.x; x < TILE * 32; x += THREADS) {
            u32 d = d0 + x % 32;
            left[x / 32][x % 32] = a[x / 32] && d < width ? a[x / 32][d] : 0.0f;
        }
        for (u32 x = threadIdx.x; x < KEYS * 32; x += THREADS) {
            u32 d = d0 + x % 32;
            right[x / 32][x % 32] = b[x / 32] && d < width ? b[x / 32][d] : 0.0f;
        }
        __syncthreads();
#pragma unroll 8
        for (u32 d = 0; d < 32; d++) {
            sum0 = fmaf(left[i][d], right[j][d], sum0);
            sum1 = fmaf(left[i][d], right[j + 16][d], sum1);
        }
    }
    scores[i][j] = sum0;
    scores[i][j + 16] = sum1;
    __syncthreads();
}

// to[i][d] += sum over j of p[i][j] * rows[j][d], for the first `width` of TILE rows of `stride`; what `to` holds is first
// multiplied by keep[i].
__device__ inline void accumulate(
    const float (*p)[KEYS + 1], const float *const *rows, u32 width, u32 stride, float *to, const float *keep
) {
    for (u32 x = threadIdx.x; x < width * 4; x += THREADS) {
        u32 d = x % width, i = x / width * 4;
        float sums[4];
        for (u32 n = 0; n < 4; n++) sums[n] = to[(i + n) * stride + d] * (keep ? keep[i + n] : 1.0f);
        for (u32 j = 0; j < KEYS; j++) {
            if (!rows[j]) continue;
            float y = rows[j][d];
            for (u32 n = 0; n < 4; n++) sums[n] = fmaf(p[i + n][j], y, sums[n]);
        }
        for (u32 n = 0; n < 4; n++) to[(i + n) * stride + d] = sums[n];
    }
    __syncthreads();
}

// grid: tiles, groups. Shared: TILE rows of dv.
KERNEL attention_forward(
    const float *q, const float *k, const float *v, const Work *works, float *out, float *lse, Sizes s
) {
    extern __shared__ float sums[];
    __shared__ float scores[TILE][KEYS + 1], left[TILE][33], right[KEYS][33], most[TILE], total[TILE], keep[TILE];
    __shared__ const float *queries[TILE], *keys[KEYS], *values[KEYS];
    __shared__ int last[TILE]; // The last key that a row sees; -1 for no row.
    Work work = works[blockIdx.x];
    u32 group = blockIdx.y, repeats = s.heads / s.groups, t = threadIdx.x;
    u64 base = first_token(work, s);
    if (t < TILE) {
        u32 pair = work.first + t, token = pair / repeats, head = group * repeats + pair % repeats;
        bool there = token < work.len;
        queries[t] = there ? q + ((u64)(work.start + token) * s.heads + head) * s.dk : 0;
        last[t] = there ? (int)(work.before + token) : -1;
        most[t] = -INFINITE;
        total[t] = 0.0f;
    }
    for (u32 x = t; x < TILE * s.dv; x += THREADS) sums[x] = 0.0f;
    u32 end_token = min(work.len, (work.first + TILE - 1) / repeats + 1);
    u32 end = work.before + end_token;
    for (u32 key0 = 0; key0 < end; key0 += KEYS) {
        __syncthreads();
        if (t < KEYS) {
            u32 key = key0 + t;
            keys[t] = key < end ? k + (base + key) * s.k_row + group * s.k_group : 0;
            values[t] = key < end ? v + (base + key) * s.v_row + group * s.v_group : 0;
        }
        __syncthreads();
        products(queries, keys, s.dk, scores, left, right);
        // Each warp folds two rows.
        for (u32 i = t / 32; i < TILE; i += THREADS / 32) {
            u32 j = t % 32;
            bool seen = (int)(key0 + j) <= last[i];
            float score = seen ? scores[i][j] * s.scale : -INFINITE;
            float before = most[i], now = fmaxf(before, warp_max(score));
            float p = seen ? expf(score - now) : 0.0f;
            float sum = warp_sum(p);
            scores[i][j] = p;
            if (j == 0) {
                float factor = before == -INFINITE ? 0.0f : expf(before - now);
                keep[i] = factor;
                most[i] = now;
                total[i] = total[i] * factor + sum;
            }
        }
        __syncthreads();
        accumulate(scores, values, s.dv, s.dv, sums, keep);
    }
    for (u32 x = t; x < TILE * s.dv; x += THREADS) {
        u32 i = x / s.dv, pair = work.first + i, token = pair / repeats;
        if (token >= work.len) continue;
        u64 row = (u64)(work.start + token) * s.heads + group * repeats + pair % repeats;
        out[row * s.dv + x % s.dv] = sums[x] / total[i];
        if (lse && x % s.dv == 0) lse[row] = most[i] + logf(total[i]);
    }
}

// The inner product of each row of the output with its gradient. A warp a row.
KERNEL attention_inner(const float *out, const float *grad, float *inner, u32 width) {
    u64 row = blockIdx.x;
    float sum = 0.0f;
    for (u32 d = threadIdx.x; d < width; d += 32) sum = fmaf(out[row * width + d], grad[row * width + d], sum);
    sum = warp_sum(sum);
    if (threadIdx.x == 0) inner[row] = sum;
}

// grid: tiles of queries, groups. Shared: TILE rows of dk.
KERNEL attention_backward_q(
    const float *q, const float *k, const float *v, const float *grad, const float *lse, const float *inner,
    const Work *works, float *dq, Sizes s
) {
    extern __shared__ float sums[];
    __shared__ float scores[TILE][KEYS + 1], slopes[TILE][KEYS + 1], left[TILE][33], right[KEYS][33];
    __shared__ float ends[TILE], inners[TILE];
    __shared__ const float *queries[TILE], *grads[TILE], *keys[KEYS], *values[KEYS];
    __shared__ int last[TILE];
    Work work = works[blockIdx.x];
    u32 group = blockIdx.y, repeats = s.heads / s.groups, t = threadIdx.x;
    if (t < TILE) {
        u32 pair = work.first + t, token = pair / repeats, head = group * repeats + pair % repeats;
        bool there = token < work.len;
        u64 row = (u64)(work.start + token) * s.heads + head;
        queries[t] = there ? q + row * s.dk : 0;
        grads[t] = there ? grad + row * s.dv : 0;
        ends[t] = there ? lse[row] : 0.0f;
        inners[t] = there ? inner[row] : 0.0f;
        last[t] = there ? (int)token : -1;
    }
    for (u32 x = t; x < TILE * s.dk; x += THREADS) sums[x] = 0.0f;
    u32 end = min(work.len, (work.first + TILE - 1) / repeats + 1);
    for (u32 key0 = 0; key0 < end; key0 += KEYS) {
        __syncthreads();
        if (t < KEYS) {
            u32 key = key0 + t;
            keys[t] = key < end ? k + (u64)(work.start + key) * s.k_row + group * s.k_group : 0;
            values[t] = key < end ? v + (u64)(work.start + key) * s.v_row + group * s.v_group : 0;
        }
        __syncthreads();
        products(queries, keys, s.dk, scores, left, right);
        products(grads, values, s.dv, slopes, left, right);
        for (u32 x = t; x < TILE * KEYS; x += THREADS) {
            u32 i = x / KEYS, j = x % KEYS;
            bool seen = (int)(key0 + j) <= last[i];
            float p = seen ? expf(scores[i][j] * s.scale - ends[i]) : 0.0f;
            slopes[i][j] = p * (slopes[i][j] - inners[i]) * s.scale;
        }
        __syncthreads();
        accumulate(slopes, keys, s.dk, s.dk, sums, 0);
    }
    for (u32 x = t; x < TILE * s.dk; x += THREADS) {
        u32 i = x / s.dk, pair = work.first + i, token = pair / repeats;
        if (token >= work.len) continue;
        u64 row = (u64)(work.start + token) * s.heads + group * repeats + pair % repeats;
        dq[row * s.dk + x % s.dk] = sums[x];
    }
}

// grid: tiles of keys, groups. Shared: TILE rows of dk, and as many of dv unless values are parts of the keys (dv_to null).
KERNEL attention_backward_kv(
    const float *q, const float *k, const float *v, const float *grad, const float *lse, const float *inner,
    const Work *works, float *dk_to, float *dv_to, Sizes s
) {
    extern __shared__ float sums[];
    __shared__ float scores[TILE][KEYS + 1], slopes[TILE][KEYS + 1], left[TILE][33], right[KEYS][33];
    __shared__ float ends[KEYS], inners[KEYS];
    __shared__ const float *queries[KEYS], *grads[KEYS], *keys[TILE], *values[TILE];
    __shared__ int tokens[KEYS]; // The token of each pair; -1 for none.
    Work work = works[blockIdx.x];
    u32 group = blockIdx.y, repeats = s.heads / s.groups, t = threadIdx.x;
    float *value_sums = sums + TILE * s.dk;
    if (t < TILE) {
        u32 key = work.first + t;
        keys[t] = key < work.len ? k + (u64)(work.start + key) * s.k_row + group * s.k_group : 0;
        values[t] = key < work.len ? v + (u64)(work.start + key) * s.v_row + group * s.v_group : 0;
    }
    for (u32 x = t; x < TILE * s.dk; x += THREADS) sums[x] = 0.0f;
    if (dv_to) {
        for (u32 x = t; x < TILE * s.dv; x += THREADS) value_sums[x] = 0.0f;
    }
    for (u32 pair0 = work.first * repeats; pair0 < work.len * repeats; pair0 += KEYS) {
        __syncthreads();
        if (t < KEYS) {
            u32 pair = pair0 + t, token = pair / repeats, head = group * repeats + pair % repeats;
            bool there = token < work.len;
            u64 row = (u64)(work.start + token) * s.heads + head;
            queries[t] = there ? q + row * s.dk : 0;
            grads[t] = there ? grad + row * s.dv : 0;
            ends[t] = there ? lse[row] : 0.0f;
            inners[t] = there ? inner[row] : 0.0f;
            tokens[t] = there ? (int)token : -1;
        }
        __syncthreads();
        products(keys, queries, s.dk, scores, left, right);
        products(values, grads, s.dv, slopes, left, right);
        for (u32 x = t; x < TILE * KEYS; x += THREADS) {
            u32 i = x / KEYS, j = x % KEYS;
            bool seen = tokens[j] >= (int)(work.first + i);
            float p = seen ? expf(scores[i][j] * s.scale - ends[j]) : 0.0f;
            scores[i][j] = p;
            slopes[i][j] = p * (slopes[i][j] - inners[j]) * s.scale;
        }
        __syncthreads();
        accumulate(slopes, queries, s.dk, s.dk, sums, 0);
        if (dv_to) {
            accumulate(scores, grads, s.dv, s.dv, value_sums, 0);
        } else {
            accumulate(scores, grads, s.dv, s.dk, sums, 0);
        }
    }
    for (u32 x = t; x < TILE * s.dk; x += THREADS) {
        u32 key = work.first + x / s.dk;
        if (key < work.len) dk_to[(u64)(work.start + key) * s.k_row + group * s.k_group + x % s.dk] = sums[x];
    }
    if (dv_to) {
        for (u32 x = t; x < TILE * s.dv; x += THREADS) {
            u32 key = work.first + x / s.dv;
            if (key < work.len) dv_to[(u64)(work.start + key) * s.v_row + group * s.v_group + x % s.dv] = value_sums[x];
        }
    }
}

// Appends rows of keys and of values to their slots: a block a row. places[row] is the row of the cache.
KERNEL append(
    const float *k, const float *v, float *cached_k, float *cached_v, const u32 *places, u32 k_width, u32 v_width
) {
    u64 from = blockIdx.x, to = places[blockIdx.x];
    for (u32 d = threadIdx.x; d < k_width; d += blockDim.x) cached_k[to * k_width + d] = k[from * k_width + d];
    for (u32 d = threadIdx.x; d < v_width; d += blockDim.x) cached_v[to * v_width + d] = v[from * v_width + d];
}

// Elements from one place to another of the same cache, which don't overlap.
KERNEL copy_within(float *x, u64 from, u64 to, u64 n) {
    for (u64 i = blockIdx.x * (u64)blockDim.x + threadIdx.x; i < n; i += (u64)gridDim.x * blockDim.x) x[to + i] = x[from + i];
}
