/* Sums with `fraction` fraction bits as floats. */
INLINE void to_f32(const int32_t *in, float *out, size_t n, int fraction)
{
    for (size_t i = 0; i < n; ++i) {
        out[i] = (float)in[i] / (float)(1u << fraction);
    }
}
