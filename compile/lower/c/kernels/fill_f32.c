/* The same number n times. */
KERNEL void fill_f32(float *out, size_t n, float value)
{
    for (size_t i = 0; i < n; ++i) {
        out[i] = value;
    }
}
