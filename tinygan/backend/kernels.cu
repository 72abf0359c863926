// The kernels of CupyBackend. Each has its formula beside the operation of the same name in
// interface.py; here is only how threads share the work.
//
// REAL (float or double) and BLOCK (threads in a block) are given by the compiler's options.
// Scalars come as double and are rounded to REAL here, as NumPy rounds Python numbers. fmad=false
// is among the options: a·b + c then rounds twice, as it does in NumPy, and every kernel without
// sums that is made of + - * / and sqrt alone gives NumPy's bits, but for numbers below 1.2e-38 in
// float32: CuPy compiles all that it is given with -ftz=true, which takes them for 0. No kernel uses
// atomics: sums have a fixed order.

#define THREAD (blockIdx.x * (long long)blockDim.x + threadIdx.x)
typedef unsigned long long word64;

// ---- noise and data -----------------------------------------------------------------------------

// The numbers of a step come by value, since a copy from the host would have to wait for them.
extern "C" __global__ void set_numbers(
    double* out, long long at, long long count, double n0, double n1, double n2, double n3,
    double n4, double n5, double n6, double n7)
{
    const double given[8] = {n0, n1, n2, n3, n4, n5, n6, n7};
    long long i = THREAD;
    if (i < count) out[at + i] = given[i];
}

// Philox 4x64-10 (Salmon et al. 2011): each thread makes one block of four 64-bit outputs.
extern "C" __global__ void philox(
    unsigned int* out, long long n, const double* step, word64 k0, word64 k1,
    word64 c0, word64 c1, word64 c2, word64 c3)
{
    long long block = THREAD;
    if (8 * block >= n) return;
    c2 += (word64)step[0];
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

// (word + 1/2) / 2^32: never 0 or 1.
__device__ double unit(unsigned int word)
{
    return (word + 0.5) * (1.0 / 4294967296.0);
}

extern "C" __global__ void uniforms(
    const unsigned int* words, double low, double high, REAL* out, long long n)
{
    long long i = THREAD;
    if (i < n) out[i] = (REAL)(unit(words[i]) * (high - low) + low);
}

// Each thread makes a pair of numbers of a pair of words.
extern "C" __global__ void normals(
    const unsigned int* words, double scale, REAL* out, long long n)
{
    long long i = 2 * THREAD;
    if (i >= n) return;
    double radius = sqrt(-2.0 * log(unit(words[i]))) * scale;
    double angle = unit(words[i + 1]) * (2.0 * 3.14159265358979323846);
    out[i] = (REAL)(radius * cos(angle));
    if (i + 1 < n) out[i + 1] = (REAL)(radius * sin(angle));
}

extern "C" __global__ void integers(
    const unsigned int* words, long long high, long long* out, long long n)
{
    long long i = THREAD;
    if (i < n) out[i] = words[i] * high >> 32;
}

extern "C" __global__ void dropout_factor(
    const unsigned int* words, long long q, double scale, REAL* out, long long n)
{
    long long i = THREAD;
    if (i < n) out[i] = (words[i / 4] >> 8 * (i % 4) & 255) < q ? (REAL)scale : (REAL)0;
}

extern "C" __global__ void window(
    const long long* x, const double* at, long long* out, long long n)
{
    long long i = THREAD;
    if (i < n) out[i] = x[(long long)at[0] + i];
}

extern "C" __global__ void gather_images(
    const unsigned char* images, const long long* index, double scale, double shift,
    REAL* out, long long size, long long n)
{
    long long i = THREAD;
    if (i < n) out[i] = (REAL)scale * images[index[i / size] * size + i % size] + (REAL)shift;
}

// ---- activations --------------------------------------------------------------------------------

__device__ REAL leaky_factor(REAL x, double slope)
{
    return copysign((REAL)1, x) < 0 ? (REAL)slope : (REAL)1;
}

extern "C" __global__ void leaky(const REAL* x, double slope, REAL* out, long long n)
{
    long long i = THREAD;
    if (i < n) out[i] = x[i] * leaky_factor(x[i], slope);
}

extern "C" __global__ void leaky_backward(
    const REAL* dy, const REAL* x, double slope, REAL* out, long long n)
{
    long long i = THREAD;
    if (i < n) out[i] = dy[i] * leaky_factor(x[i], slope);
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

// A matrix is cut into tiles of 32 columns and `height` rows, one for each block of threads; of a
// tile's rows each of the block's GROUPS of 32 threads has every GROUPS-th.
#define GROUPS (BLOCK / 32)

struct Tile {
    long long rows, columns, height;  // of the matrix, and of all tiles but the lowest
    long long part, parts;            // how many tiles lie above this one, and above one another
    long long column, first, end;     // of this thread: its column, its first row, where rows end
    int group;
    bool inside;                      // else its column is beyond the last, and it has no rows
};

__device__ Tile tile_of(long long rows, long long columns, long long height)
{
    long long across = (columns + 31) / 32, part = blockIdx.x / across;
    long long column = blockIdx.x % across * 32 + threadIdx.x % 32, end = (part + 1) * height;
    bool inside = column < columns;
    int group = threadIdx.x / 32;
    end = !inside ? 0 : end < rows ? end : rows;
    return {rows, columns, height, part, (rows + height - 1) / height,
            column, part * height + group, end, group, inside};
}

__device__ double rows_of(const Tile& t, long long part)
{
    return part + 1 < t.parts ? t.height : t.rows - part * t.height;
}

// The sum over a block's groups, column by column, for all of its threads.
__device__ double column_sum(double value)
{
    __shared__ double part[GROUPS][32];
    int lane = threadIdx.x % 32;
    __syncthreads();  // everybody has read the sums before these
    part[threadIdx.x / 32][lane] = value;
    __syncthreads();
    double sum = 0;
    for (int g = 0; g < GROUPS; g++) sum += part[g][lane];
    return sum;
}

// out (parts, columns): the sums of every tile, with `add` on top of what is there.
extern "C" __global__ void column_sums(
    const REAL* x, REAL* out, long long rows, long long columns, long long height, long long add)
{
    const Tile t = tile_of(rows, columns, height);
    REAL some = 0;
    for (long long row = t.first; row < t.end; row += GROUPS) some += x[row * columns + t.column];
    REAL sum = (REAL)column_sum(some);
    long long at = t.part * columns + t.column;
    if (t.inside && t.group == 0) out[at] = add ? out[at] + sum : sum;
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

// ---- batch normalisation --------------------------------------------------------------------------

// A matrix that is one tile high needs one launch: each block sums its columns, and then goes over
// its rows again. Of a higher one, a first launch leaves two sums of every tile in `sums`
// (2, parts, columns), and each block of the second puts those of its columns together.

// A thread's next AHEAD rows, which it then writes to elsewhere. The compiler cannot know that it
// is elsewhere: left to itself it would read each row after the one before has been written.
#define AHEAD 8
__device__ void read_ahead(const REAL* x, const Tile& t, long long row, REAL* some)
{
    for (int k = 0; k < AHEAD; k++)
        some[k] = row + k * GROUPS < t.end ? x[(row + k * GROUPS) * t.columns + t.column] : (REAL)0;
}

// Mean, and sum of the squared distances from it, in the columns of a tile.
__device__ void moments_of_tile(const REAL* x, const Tile& t, double* mean, double* squares)
{
    REAL sum = 0, sum_of_squares = 0;
    for (long long row = t.first; row < t.end; row += GROUPS) sum += x[row * t.columns + t.column];
    *mean = column_sum(sum) / rows_of(t, t.part);
    for (long long row = t.first; row < t.end; row += GROUPS) {
        REAL distance = x[row * t.columns + t.column] - (REAL)*mean;
        sum_of_squares += distance * distance;
    }
    *squares = column_sum(sum_of_squares);
}

// The same of all rows (Chan, Golub and LeVeque 1983): means differ from tile to tile.
__device__ void moments_of_all(const REAL* sums, const Tile& t, double* mean, double* squares)
{
    const REAL* means = sums + t.column;
    double sum = 0, sum_of_squares = 0;
    for (long long p = t.group; t.inside && p < t.parts; p += GROUPS)
        sum += rows_of(t, p) * means[p * t.columns];
    *mean = column_sum(sum) / t.rows;
    for (long long p = t.group; t.inside && p < t.parts; p += GROUPS) {
        double distance = means[p * t.columns] - *mean;
        sum_of_squares += means[(t.parts + p) * t.columns] + rows_of(t, p) * distance * distance;
    }
    *squares = column_sum(sum_of_squares);
}

extern "C" __global__ void batch_norm_sums(
    const REAL* x, REAL* sums, long long rows, long long columns, long long height)
{
    const Tile t = tile_of(rows, columns, height);
    double mean, squares;
    moments_of_tile(x, t, &mean, &squares);
    if (!t.inside || t.group != 0) return;
    sums[t.part * columns + t.column] = (REAL)mean;
    sums[(t.parts + t.part) * columns + t.column] = (REAL)squares;
}

extern "C" __global__ void batch_norm(
    const REAL* x, const REAL* gamma, const REAL* beta, double eps, const REAL* sums,
    REAL* x_hat, REAL* y, REAL* stats, long long rows, long long columns, long long height)
{
    const Tile t = tile_of(rows, columns, height);
    double mean, squares;
    if (t.parts == 1)
        moments_of_tile(x, t, &mean, &squares);
    else
        moments_of_all(sums, t, &mean, &squares);
    if (!t.inside) return;
    const double var = squares / rows;
    const REAL centre = (REAL)mean, inv_std = (REAL)(1 / sqrt(var + eps));
    const REAL scale = gamma[t.column], shift = beta[t.column];
    for (long long row = t.first; row < t.end; row += AHEAD * GROUPS) {
        REAL some[AHEAD];
        read_ahead(x, t, row, some);
        for (int k = 0; k < AHEAD && row + k * GROUPS < t.end; k++) {
            long long i = (row + k * GROUPS) * columns + t.column;
            REAL value = (some[k] - centre) * inv_std;
            x_hat[i] = value;
            y[i] = value * scale + shift;
        }
    }
    if (t.part != 0 || t.group != 0) return;
    stats[t.column] = centre;
    stats[columns + t.column] = (REAL)var;
    stats[2 * columns + t.column] = inv_std;
}

// The sums of dy·x_hat and of dy, in the columns of a tile.
__device__ void gradients_of_tile(
    const REAL* dy, const REAL* x_hat, const Tile& t, double* d_gamma, double* d_beta)
{
    REAL products = 0, sum = 0;
    for (long long row = t.first; row < t.end; row += GROUPS) {
        long long i = row * t.columns + t.column;
        products += dy[i] * x_hat[i];
        sum += dy[i];
    }
    *d_gamma = column_sum(products);
    *d_beta = column_sum(sum);
}

__device__ void gradients_of_all(
    const REAL* sums, const Tile& t, double* d_gamma, double* d_beta)
{
    double products = 0, sum = 0;
    for (long long p = t.group; t.inside && p < t.parts; p += GROUPS) {
        products += sums[p * t.columns + t.column];
        sum += sums[(t.parts + p) * t.columns + t.column];
    }
    *d_gamma = column_sum(products);
    *d_beta = column_sum(sum);
}

extern "C" __global__ void batch_norm_backward_sums(
    const REAL* dy, const REAL* x_hat, REAL* sums,
    long long rows, long long columns, long long height)
{
    const Tile t = tile_of(rows, columns, height);
    double products, sum;
    gradients_of_tile(dy, x_hat, t, &products, &sum);
    if (!t.inside || t.group != 0) return;
    sums[t.part * columns + t.column] = (REAL)products;
    sums[(t.parts + t.part) * columns + t.column] = (REAL)sum;
}

// `add`: to gamma's and beta's gradients; else they are not touched.
extern "C" __global__ void batch_norm_backward(
    const REAL* dy, const REAL* x_hat, const REAL* gamma, const REAL* inv_std, const REAL* sums,
    REAL* out, REAL* d_gamma, REAL* d_beta, long long add,
    long long rows, long long columns, long long height)
{
    const Tile t = tile_of(rows, columns, height);
    double products, sum;
    if (t.parts == 1)
        gradients_of_tile(dy, x_hat, t, &products, &sum);
    else
        gradients_of_all(sums, t, &products, &sum);
    if (!t.inside) return;
    const REAL slope = (REAL)(products / rows), level = (REAL)(sum / rows);
    const REAL scale = gamma[t.column] * inv_std[t.column];
    for (long long row = t.first; row < t.end; row += AHEAD * GROUPS) {
        REAL some[AHEAD], some_hat[AHEAD];
        read_ahead(dy, t, row, some);
        read_ahead(x_hat, t, row, some_hat);
        for (int k = 0; k < AHEAD && row + k * GROUPS < t.end; k++)
            out[(row + k * GROUPS) * columns + t.column] =
                (some[k] - (some_hat[k] * slope + level)) * scale;
    }
    if (!add || t.part != 0 || t.group != 0) return;
    d_gamma[t.column] += (REAL)products;
    d_beta[t.column] += (REAL)sum;
}

extern "C" __global__ void move_statistics(
    REAL* mean, REAL* var, const REAL* stats, double momentum, long long n)
{
    long long i = THREAD;
    if (i >= n) return;
    const REAL old = (REAL)momentum, fresh = (REAL)(1 - momentum);
    mean[i] = mean[i] * old + fresh * stats[i];
    var[i] = var[i] * old + fresh * stats[n + i];
}

// ---- losses: one block walks over all samples -----------------------------------------------------

// `soft`: the labels are `target[i]`; else all are `label`, and `target` is not read.
extern "C" __global__ void bce_logits(
    const REAL* x, const REAL* target, long long soft, double label, double share,
    REAL* out, REAL* loss, long long n)
{
    const REAL each = (REAL)(share / n);
    double sum = 0;
    for (long long i = threadIdx.x; i < n; i += BLOCK) {
        REAL t = soft ? target[i] : (REAL)label;
        sum += (x[i] > 0 ? x[i] : (REAL)0) - x[i] * t + log1p(exp(-fabs(x[i])));
        out[i] = (sigmoid_of(x[i]) - t) * each;
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) *loss = (REAL)(share * sum / n);
}

extern "C" __global__ void bce_probabilities(
    const REAL* x, const REAL* target, long long soft, double label, double eps, double share,
    REAL* out, REAL* loss, long long n)
{
    const REAL low = (REAL)eps, high = (REAL)(1 - eps);
    double sum = 0;
    for (long long i = threadIdx.x; i < n; i += BLOCK) {
        REAL t = soft ? target[i] : (REAL)label;
        REAL p = sigmoid_of(x[i]), q = p < low ? low : p > high ? high : p;
        sum += -(t * log(q) + (1 - t) * log1p(-q));
        REAL slope = q == p ? (q - t) / (q * (1 - q)) : (REAL)0;
        out[i] = slope * ((REAL)share * p * (1 - p) / (REAL)n);
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) *loss = (REAL)(share * sum / n);
}

// ---- optimisers -----------------------------------------------------------------------------------

extern "C" __global__ void sgd(
    REAL* theta, const REAL* grad, REAL* velocity, const double* rates, long long n)
{
    long long i = THREAD;
    if (i >= n) return;
    const REAL lr = (REAL)rates[0], momentum = (REAL)rates[1];
    velocity[i] = velocity[i] * momentum - grad[i] * lr;
    theta[i] += velocity[i];
}

extern "C" __global__ void adam(
    REAL* theta, const REAL* grad, REAL* m, REAL* v,
    double beta1, double beta2, const double* rates, long long n)
{
    long long i = THREAD;
    if (i >= n) return;
    const REAL rate = (REAL)rates[0], eps = (REAL)rates[1];
    m[i] = m[i] * (REAL)beta1 + grad[i];
    v[i] = v[i] * (REAL)beta2 + grad[i] * grad[i];
    theta[i] -= m[i] / (sqrt(v[i]) + eps) * rate;
}
