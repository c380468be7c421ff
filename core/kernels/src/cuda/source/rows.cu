// Operations by element and by row.

KERNEL to_bf16(const float *x, u16 *y, u64 n) {
    for (u64 i = blockIdx.x * (u64)blockDim.x + threadIdx.x; i < n; i += (u64)gridDim.x * blockDim.x) y[i] = narrowed(x[i]);
}

// y[row] += b, rows of n.
KERNEL add_bias(float *y, const float *b, u64 count, u32 n) {
    for (u64 i = blockIdx.x * (u64)blockDim.x + threadIdx.x; i < count; i += (u64)gridDim.x * blockDim.x) y[i] += b[i % n];
}

// Rows of x by number; a row may be bf16.
template <typename T> __device__ void gather(const T *x, const u32 *rows, float *y, u32 d) {
    const T *from = x + (u64)rows[blockIdx.x] * d;
    for (u32 i = threadIdx.x; i < d; i += blockDim.x) y[(u64)blockIdx.x * d + i] = widened(from[i]);
}
KERNEL gather_f32(const float *x, const u32 *rows, float *y, u32 d) { gather(x, rows, y, d); }
KERNEL gather_bf16(const u16 *x, const u32 *rows, float *y, u32 d) { gather(x, rows, y, d); }

// The rows of dy that came from one row of x, in ascending order: one block adds them all. Row lists[starts[b]..starts[b + 1]]
// belongs to targets[b]. What it adds to is there already.
KERNEL scatter_rows(const float *dy, const u32 *lists, const u32 *starts, const u32 *targets, float *dx, u32 d) {
    u32 first = starts[blockIdx.x], end = starts[blockIdx.x + 1];
    float *to = dx + (u64)targets[blockIdx.x] * d;
    for (u32 i = threadIdx.x; i < d; i += blockDim.x) {
        float sum = to[i];
        for (u32 j = first; j < end; j++) sum += dy[(u64)lists[j] * d + i];
        to[i] = sum;
    }
}

// The gradient of a token's row is the sum of those of its pairs.
KERNEL gather_pairs(const float *dy, const u32 *pairs, float *dx, u32 k, u32 d) {
    const u32 *own = pairs + (u64)blockIdx.x * k;
    for (u32 i = threadIdx.x; i < d; i += blockDim.x) {
        float sum = 0.0f;
        for (u32 j = 0; j < k; j++) sum += dy[(u64)own[j] * d + i];
        dx[(u64)blockIdx.x * d + i] = sum;
    }
}

KERNEL combine(const float *y, const float *weights, const u32 *pairs, float *out, u32 k, u32 d) {
    const u32 *own = pairs + (u64)blockIdx.x * k;
    for (u32 i = threadIdx.x; i < d; i += blockDim.x) {
        float sum = 0.0f;
        for (u32 j = 0; j < k; j++) sum = fmaf(weights[(u64)blockIdx.x * k + j], y[(u64)own[j] * d + i], sum);
        out[(u64)blockIdx.x * d + i] = sum;
    }
}

// A block a slot.
KERNEL combine_backward(
    const float *y, const float *weights, const u32 *pairs, const float *grad, float *dy, float *dw, u32 k, u32 d
) {
    u32 slot = blockIdx.x;
    u64 row = (u64)pairs[slot] * d;
    const float *g = grad + (u64)(slot / k) * d;
    float weight = weights[slot], sum = 0.0f;
    for (u32 i = threadIdx.x; i < d; i += blockDim.x) {
        sum = fmaf(g[i], y[row + i], sum);
        dy[row + i] = weight * g[i];
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) dw[slot] = sum;
}

// 1 / sqrt(mean(x^2) + eps) of the block's row, which all threads receive.
__device__ inline float norm_factor(const float *x, u32 d, float eps) {
    float squares = 0.0f;
    for (u32 i = threadIdx.x; i < d; i += blockDim.x) squares = fmaf(x[i], x[i], squares);
    return 1.0f / sqrtf(block_sum(squares) / d + eps);
}

// The first d of each row of x_row elements become the first d of a row of y_row.
KERNEL rms_norm(const float *x, const float *w, float *y, u32 d, u32 x_row, u32 y_row, float eps) {
    x += (u64)blockIdx.x * x_row;
    y += (u64)blockIdx.x * y_row;
    float factor = norm_factor(x, d, eps);
    for (u32 i = threadIdx.x; i < d; i += blockDim.x) y[i] = x[i] * factor * w[i];
}

// dx = r * (g - x * r^2 * mean(g * x)), g = dy * w. The row's factor is kept for the gradient of w.
KERNEL rms_norm_backward(
    const float *x, const float *w, const float *dy, float *dx, float *factors, u32 d, u32 x_row, u32 y_row, float eps
) {
    x += (u64)blockIdx.x * x_row;
    dx += (u64)blockIdx.x * x_row;
    dy += (u64)blockIdx.x * y_row;
    float factor = norm_factor(x, d, eps), sum = 0.0f;
    for (u32 i = threadIdx.x; i < d; i += blockDim.x) sum = fmaf(dy[i] * w[i], x[i], sum);
    float inner = block_sum(sum) / d * factor * factor;
    for (u32 i = threadIdx.x; i < d; i += blockDim.x) dx[i] = factor * (dy[i] * w[i] - x[i] * inner);
    if (threadIdx.x == 0) factors[blockIdx.x] = factor;
}

// Sums over columns go in two steps, first over stretches of 64 rows, then over the stretches.
#define STRETCH 64

KERNEL rms_norm_weight(
    const float *x, const float *dy, const float *factors, float *parts, u32 rows, u32 d, u32 x_row, u32 y_row
) {
    u32 i = blockIdx.x * blockDim.x + threadIdx.x, first = blockIdx.y * STRETCH, end = min(rows, first + STRETCH);
    if (i >= d) return;
    float sum = 0.0f;
    for (u32 row = first; row < end; row++) sum = fmaf(dy[(u64)row * y_row + i], x[(u64)row * x_row + i] * factors[row], sum);
    parts[(u64)blockIdx.y * d + i] = sum;
}

KERNEL column_parts(const float *x, float *parts, u32 rows, u32 d) {
    u32 i = blockIdx.x * blockDim.x + threadIdx.x, first = blockIdx.y * STRETCH, end = min(rows, first + STRETCH);
    if (i >= d) return;
    float sum = 0.0f;
    for (u32 row = first; row < end; row++) sum += x[(u64)row * d + i];
    parts[(u64)blockIdx.y * d + i] = sum;
}

// Adds the sums of columns.
KERNEL add_columns(const float *parts, float *to, u32 rows, u32 d) {
    u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= d) return;
    float sum = to[i];
    for (u32 row = 0; row < rows; row++) sum += parts[(u64)row * d + i];
    to[i] = sum;
}

// Rows hold gate, then up.
KERNEL silu_mul(const float *x, float *y, u64 count, u32 width) {
    for (u64 i = blockIdx.x * (u64)blockDim.x + threadIdx.x; i < count; i += (u64)gridDim.x * blockDim.x) {
        u64 at = i / width * 2 * width + i % width;
        y[i] = x[at] * sigmoid(x[at]) * x[at + width];
    }
}

KERNEL silu_mul_backward(const float *x, const float *dy, float *dx, u64 count, u32 width) {
    for (u64 i = blockIdx.x * (u64)blockDim.x + threadIdx.x; i < count; i += (u64)gridDim.x * blockDim.x) {
        u64 at = i / width * 2 * width + i % width;
        float gate = x[at], s = sigmoid(gate);
        dx[at] = dy[i] * x[at + width] * s * (1.0f + gate * (1.0f - s));
        dx[at + width] = dy[i] * gate * s;
    }
}

// Rotates `width` elements of each head, from x_at in x to y_at in y; sign -1 turns back. A block a row.
KERNEL rope(
    const float *x, float *y, const float *cosines, const float *sines, const u32 *positions,
    u32 heads, u32 width, u32 x_head, u32 y_head, u32 x_at, u32 y_at, u32 interleaved, float sign
) {
    u32 half = width / 2;
    u64 angles = (u64)positions[blockIdx.x] * half;
    for (u32 j = threadIdx.x; j < heads * half; j += blockDim.x) {
        u32 head = j / half, i = j % half;
        u64 from = ((u64)blockIdx.x * heads + head) * x_head + x_at, to = ((u64)blockIdx.x * heads + head) * y_head + y_at;
        u32 a = interleaved ? 2 * i : i, b = interleaved ? 2 * i + 1 : half + i;
        float c = cosines[angles + i], s = sines[angles + i] * sign, first = x[from + a], second = x[from + b];
        y[to + a] = first * c - second * s;
        y[to + b] = second * c + first * s;
    }
}

// Log-probability of the target and entropy of each row of logits, which are divided by the temperature first.
KERNEL token_logprobs(const float *logits, const u32 *targets, float *out, float factor, u32 vocab) {
    const float *z = logits + (u64)blockIdx.x * vocab;
    float most = -INFINITE, sum = 0.0f, weighed = 0.0f;
    for (u32 i = threadIdx.x; i < vocab; i += blockDim.x) most = fmaxf(most, z[i] * factor);
    most = block_max(most);
    for (u32 i = threadIdx.x; i < vocab; i += blockDim.x) {
        float shifted = z[i] * factor - most, e = expf(shifted);
        sum += e;
        weighed = fmaf(e, shifted, weighed);
    }
    sum = block_sum(sum);
    weighed = block_sum(weighed);
    if (threadIdx.x == 0) {
        float ln = logf(sum);
        out[2 * blockIdx.x] = z[targets[blockIdx.x]] * factor - most - ln;
        out[2 * blockIdx.x + 1] = ln - weighed / sum;
    }
}

// Turns a row of logits into the gradient of them: g_lp * (onehot - p) - g_entropy * p * (ln p + entropy).
KERNEL token_logprobs_backward(
    float *logits, const u32 *targets, const float *out, const float *grad, float factor, u32 vocab
) {
    float *z = logits + (u64)blockIdx.x * vocab;
    float most = -INFINITE, sum = 0.0f;
    for (u32 i = threadIdx.x; i < vocab; i += blockDim.x) most = fmaxf(most, z[i] * factor);
    most = block_max(most);
    for (u32 i = threadIdx.x; i < vocab; i += blockDim.x) sum += expf(z[i] * factor - most);
    float ln = logf(block_sum(sum));
    float g = grad[2 * blockIdx.x], g_entropy = grad[2 * blockIdx.x + 1], entropy = out[2 * blockIdx.x + 1];
    u32 target = targets[blockIdx.x];
    for (u32 i = threadIdx.x; i < vocab; i += blockDim.x) {
        float logp = z[i] * factor - most - ln, p = expf(logp);
        float d = (i == target ? g : 0.0f) - p * (g + g_entropy * (logp + entropy));
        z[i] = d * factor;
    }
}

// One AdamW update in the order of PyTorch's operations.
KERNEL adamw(
    float *param, const float *grad, float *mean, float *square, u64 n,
    float keep, float beta1, float beta2, float new1, float new2, float step, float root, float eps, float scale
) {
    for (u64 i = blockIdx.x * (u64)blockDim.x + threadIdx.x; i < n; i += (u64)gridDim.x * blockDim.x) {
        float g = grad[i] * scale;
        float m = beta1 * mean[i] + new1 * g, v = beta2 * square[i] + new2 * g * g;
        mean[i] = m;
        square[i] = v;
        param[i] = keep * param[i] - step * (m / (sqrtf(v) / root + eps));
    }
}

// The sum of squares of each block's stretch, in f64; then one block adds the parts.
__device__ inline double block_sum_f64(double x) {
    __shared__ double parts[256];
    parts[threadIdx.x] = x;
    for (u32 width = 128; width > 0; width /= 2) {
        __syncthreads();
        if (threadIdx.x < width) parts[threadIdx.x] += parts[threadIdx.x + width];
    }
    __syncthreads();
    return parts[0];
}

KERNEL squares(const float *x, double *parts, u64 n) {
    double sum = 0.0;
    for (u64 i = blockIdx.x * (u64)blockDim.x + threadIdx.x; i < n; i += (u64)gridDim.x * blockDim.x) {
        sum += (double)x[i] * x[i];
    }
    sum = block_sum_f64(sum);
    if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}

KERNEL add_squares(const double *parts, double *out, u32 count) {
    double sum = 0.0;
    for (u32 i = threadIdx.x; i < count; i += blockDim.x) sum += parts[i];
    sum = block_sum_f64(sum);
    if (threadIdx.x == 0) *out = sum;
}

KERNEL copy_numbers(const u32 *from, u32 *to, u32 n) {
    u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) to[i] = from[i];
}
