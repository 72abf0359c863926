// The kernels of LoweredConvolution and of max pooling; how they are written: see kernels.cu.
//
// Images (N, H, W, C), gradients and windows (N, P, Q, C), patches (N, P, Q, kh, kw, C). Callers see
// to it that there are less than 2^31 numbers of each: an index is then taken apart in 32 bits, in
// which a division takes a GPU a fraction of the time that it takes in 64.

// The last coordinate of `index`, along an axis of `size`; `index` keeps the others.
__device__ int last(unsigned int& index, long long size)
{
    unsigned int coordinate = index % (unsigned int)size;
    index /= (unsigned int)size;
    return (int)coordinate;
}

// A thread for each (n, p, q, b, c) walks down the kernel's rows. What one of them sees lies side by
// side in the image as in the patch, so that (b, c) is one coordinate for both.
extern "C" __global__ void im2col(
    const REAL* x, REAL* patches, long long H, long long W, long long kh, long long kw,
    long long sh, long long sw, long long top, long long left, long long P, long long Q,
    long long C, long long n)
{
    if (THREAD >= n) return;
    unsigned int i = (unsigned int)THREAD;
    const long long strip = kw * C;
    const int bc = last(i, strip);
    REAL* patch = patches + i * kh * strip + bc;
    const int q = last(i, Q), p = last(i, P);
    const long long at = (q * sw - left) * C + bc;  // in a row of pixels, (w, c) as one coordinate
    const bool inside = 0 <= at && at < W * C;
    for (int a = 0; a < kh; a++) {
        long long h = p * sh + a - top;
        patch[a * strip] = inside && 0 <= h && h < H ? x[(i * H + h) * W * C + at] : (REAL)0;
    }
}

// A thread for each (n, h, w, c) adds what was read there, in the order of (a, b).
extern "C" __global__ void col2im(
    const REAL* patches, REAL* out, long long H, long long W, long long kh, long long kw,
    long long sh, long long sw, long long top, long long left, long long P, long long Q,
    long long C, long long n)
{
    if (THREAD >= n) return;
    unsigned int i = (unsigned int)THREAD;
    const int c = last(i, C);
    unsigned int q0 = last(i, W) + (unsigned int)left, p0 = last(i, H) + (unsigned int)top;
    const int b0 = last(q0, sw), a0 = last(p0, sh);
    REAL sum = 0;
    for (int a = a0, p = (int)p0; a < kh && p >= 0; a += (int)sh, p--)
        for (int b = b0, q = (int)q0; b < kw && q >= 0; b += (int)sw, q--)
            if (p < P && q < Q)
                sum += patches[((((i * P + p) * Q + q) * kh + a) * kw + b) * C + c];
    out[THREAD] = sum;
}

// ---- max pooling --------------------------------------------------------------------------------

// A thread for each (n, p, q, c).
extern "C" __global__ void max_pool(
    const REAL* x, REAL* y, REAL* winner, long long H, long long W, long long kh, long long kw,
    long long sh, long long sw, long long top, long long left, long long P, long long Q,
    long long C, long long n)
{
    if (THREAD >= n) return;
    unsigned int i = (unsigned int)THREAD;
    const int c = last(i, C), q = last(i, Q), p = last(i, P);
    REAL best = log((REAL)0), place = 0;  // -infinity
    for (int a = 0; a < kh; a++)
        for (int b = 0; b < kw; b++) {
            long long h = p * sh + a - top, w = q * sw + b - left;
            if (h < 0 || h >= H || w < 0 || w >= W) continue;
            REAL value = x[((i * H + h) * W + w) * C + c];
            if (value > best) place = (REAL)(a * kw + b);
            if (value > best || value != value) best = value;  // a NaN wins and stays
        }
    y[THREAD] = best;
    winner[THREAD] = place;
}

// A thread for each (n, h, w, c) adds what the windows that it won send back, in the order of (a, b).
extern "C" __global__ void max_pool_backward(
    const REAL* dy, const REAL* winner, REAL* out, long long H, long long W, long long kh,
    long long kw, long long sh, long long sw, long long top, long long left, long long P,
    long long Q, long long C, long long n)
{
    if (THREAD >= n) return;
    unsigned int i = (unsigned int)THREAD;
    const int c = last(i, C);
    unsigned int q0 = last(i, W) + (unsigned int)left, p0 = last(i, H) + (unsigned int)top;
    const int b0 = last(q0, sw), a0 = last(p0, sh);
    REAL sum = 0;
    for (int a = a0, p = (int)p0; a < kh && p >= 0; a += (int)sh, p--)
        for (int b = b0, q = (int)q0; b < kw && q >= 0; b += (int)sw, q--) {
            if (p >= P || q >= Q) continue;
            long long window = ((i * P + p) * Q + q) * C + c;
            if (winner[window] == (REAL)(a * kw + b)) sum += dy[window];
        }
    out[THREAD] = sum;
}
