/* x becomes x + leak |x|: leaky ReLU but for a scale that the weights hold. */
INLINE void leak_f32(float *x, size_t n, float leak)
{
    for (size_t i = 0; i < n; ++i) {
        x[i] += leak * absolute(x[i]);
    }
}
