/* out = in within [low, high]. Every comparison with a NaN is false: it becomes low. */
KERNEL void clip_f32(const float *in, float *out, size_t n, float low, float high)
{
    for (size_t i = 0; i < n; ++i) {
        const float above = in[i] > low ? in[i] : low;
        out[i] = above < high ? above : high;
    }
}
