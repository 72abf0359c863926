// The kernels of CupyBackend. Each has its formula beside the operation of the same name in
// interface.py; here is only how threads share the work.
//
// REAL (float or double) and BLOCK (threads in a block) are given by the compiler's options.
// Scalars come as double and are rounded to REAL here, as NumPy rounds Python numbers. fmad=false
// is among the options: a·b + c then rounds twice, as it does in NumPy, and every kernel made of
// + - * / and sqrt alone gives NumPy's bits. No kernel uses atomics: sums have a fixed order.

#define THREAD (blockIdx.x * (long long)blockDim.x + threadIdx.x)
typedef unsigned long long word64;

// ---- noise and data -----------------------------------------------------------------------------

// Philox 4x64-10 (Salmon et al. 2011): each thread makes one block of four 64-bit outputs.
extern "C" __global__ void philox(
    unsigned int* out, long long n, word64 k0, word64 k1,
    word64 c0, word64 c1, word64 c2, word64 c3)
{
    long long block = THREAD;
    if (8 * block >= n) return;
    word64 before = c0;
    c0 += (word64)block + 1;  // NumPy advances the counter before its first block
    if (c0 < before && ++c1 == 0 && ++c2 == 0) ++c3;
    for (int round = 0; round < 10; round++) {
        word64 high0 = __umul64hi(0xD2E7470EE14C6C93ull, c0), low0 = 0xD2E7470EE14C6C93ull * c0;
        word64 high2 = __umul64hi(0xCA5A826395121157ull, c2), low2 = 0xCA5A826395121157ull * c2;
        c0 = high2 ^ c1 ^ k0;
        c1 = low2;
        c2 = high0 ^ c3 ^ k1;
        c3 = low0;
        k0 += 0x9E3779B97F4A7C15ull;
        k1 += 0xBB67AE8584CAA73Bull;
    }
    word64 outputs[4] = {c0, c1, c2, c3};
    for (int i = 0; i < 8 && 8 * block + i < n; i++)
        out[8 * block + i] = (unsigned int)(outputs[i / 2] >> 32 * (i % 2));
}

extern "C" __global__ void dropout_factor(
    const unsigned int* words, long long q, double scale, REAL* out, long long n)
{
    long long i = THREAD;
    if (i < n) out[i] = (words[i / 4] >> 8 * (i % 4) & 255) < q ? (REAL)scale : (REAL)0;
}

extern "C" __global__ void gather_images(
    const unsigned char* images, const long long* index, double scale, double shift,
    REAL* out, long long size, long long n)
{
    long long i = THREAD;
    if (i < n) out[i] = (REAL)scale * images[index[i / size] * size + i % size] + (REAL)shift;
}

// ---- activations --------------------------------------------------------------------------------

extern "C" __global__ void leaky_factor(const REAL* x, double slope, REAL* out, long long n)
{
    long long i = THREAD;
    if (i < n) out[i] = copysign((REAL)1, x[i]) < 0 ? (REAL)slope : (REAL)1;
}

__device__ REAL sigmoid_of(REAL x)
{
    const REAL limit = sizeof(REAL) == 4 ? 80 : 700;
    REAL power = -x > limit ? limit : -x;  // written so that a NaN stays one
    return 1 / (exp(power) + 1);
}

extern "C" __global__ void sigmoid(const REAL* x, REAL* out, long long n)
{
    long long i = THREAD;
    if (i < n) out[i] = sigmoid_of(x[i]);
}

extern "C" __global__ void sigmoid_backward(
    const REAL* dy, const REAL* y, REAL* out, long long n)
{
    long long i = THREAD;
    if (i < n) out[i] = (1 - y[i]) * y[i] * dy[i];
}

extern "C" __global__ void tanh_backward(
    const REAL* dy, const REAL* y, REAL* out, long long n)
{
    long long i = THREAD;
    if (i < n) out[i] = (1 - y[i] * y[i]) * dy[i];
}

// h (N, pieces, units), y (N, units): a thread for every unit of every sample.
extern "C" __global__ void maxout(
    const REAL* h, REAL* out, long long pieces, long long units, long long n)
{
    long long i = THREAD;
    if (i >= n) return;
    const REAL* piece = h + i / units * pieces * units + i % units;
    REAL best = *piece;
    for (long long p = 1; p < pieces; p++) {
        REAL value = piece[p * units];
        if (value > best || value != value) best = value;  // a NaN wins and stays, as in np.max
    }
    out[i] = best;
}

extern "C" __global__ void maxout_backward(
    const REAL* dy, const REAL* h, const REAL* y, REAL* out,
    long long pieces, long long units, long long n)
{
    long long i = THREAD;
    if (i >= n) return;
    long long at = i / units * pieces * units + i % units;
    bool free = true;
    for (long long p = 0; p < pieces; p++, at += units) {
        bool hit = free && h[at] == y[i];  // of equal pieces the first one takes it
        out[at] = hit ? dy[i] : (REAL)0;
        free = free && !hit;
    }
}

// ---- sums ---------------------------------------------------------------------------------------

// A block has 32 columns. Its BLOCK / 32 groups each add every (BLOCK / 32)-th row, then the first
// group adds the groups' sums in their order.
extern "C" __global__ void column_sums(
    const REAL* x, REAL* out, long long rows, long long columns, long long add)
{
    __shared__ REAL part[BLOCK / 32][32];
    int lane = threadIdx.x % 32, group = threadIdx.x / 32;
    long long column = blockIdx.x * 32ll + lane;
    REAL sum = 0;
    if (column < columns)
        for (long long row = group; row < rows; row += BLOCK / 32) sum += x[row * columns + column];
    part[group][lane] = sum;
    __syncthreads();
    if (group == 0 && column < columns) {
        for (int g = 1; g < BLOCK / 32; g++) sum += part[g][lane];
        out[column] = add ? out[column] + sum : sum;
    }
}

// The sum over a block's threads, for thread 0.
__device__ double block_sum(double value)
{
    __shared__ double part[BLOCK];
    int thread = threadIdx.x;
    part[thread] = value;
    for (int half = BLOCK / 2; half > 0; half /= 2) {
        __syncthreads();
        if (thread < half) part[thread] += part[thread + half];
    }
    return part[0];
}

// ---- losses: one block walks over all samples -----------------------------------------------------

// `soft`: the labels are `target[i]`; else all are `label`, and `target` is not read.
extern "C" __global__ void bce_logits(
    const REAL* x, const REAL* target, long long soft, double label,
    REAL* out, REAL* loss, long long n)
{
    double sum = 0;
    for (long long i = threadIdx.x; i < n; i += BLOCK) {
        REAL t = soft ? target[i] : (REAL)label;
        sum += (x[i] > 0 ? x[i] : (REAL)0) - x[i] * t + log1p(exp(-fabs(x[i])));
        out[i] = sigmoid_of(x[i]) - t;
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) *loss = (REAL)(sum / n);
}

extern "C" __global__ void bce_probabilities(
    const REAL* p, const REAL* target, long long soft, double label, double eps,
    REAL* out, REAL* loss, long long n)
{
    const REAL low = (REAL)eps, high = (REAL)(1 - eps);
    double sum = 0;
    for (long long i = threadIdx.x; i < n; i += BLOCK) {
        REAL t = soft ? target[i] : (REAL)label;
        REAL q = p[i] < low ? low : p[i] > high ? high : p[i];
        sum += -(t * log(q) + (1 - t) * log1p(-q));
        out[i] = q == p[i] ? (q - t) / (q * (1 - q)) : (REAL)0;
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) *loss = (REAL)(sum / n);
}

// ---- optimisers -----------------------------------------------------------------------------------

extern "C" __global__ void sgd(
    REAL* theta, const REAL* grad, REAL* velocity, double lr, double momentum, long long n)
{
    long long i = THREAD;
    if (i >= n) return;
    velocity[i] = velocity[i] * (REAL)momentum - grad[i] * (REAL)lr;
    theta[i] += velocity[i];
}

extern "C" __global__ void adam(
    REAL* theta, const REAL* grad, REAL* m, REAL* v,
    double beta1, double beta2, double rate, double eps, long long n)
{
    long long i = THREAD;
    if (i >= n) return;
    m[i] = m[i] * (REAL)beta1 + grad[i];
    v[i] = v[i] * (REAL)beta2 + grad[i] * grad[i];
    theta[i] -= m[i] / (sqrt(v[i]) + (REAL)eps) * (REAL)rate;
}
