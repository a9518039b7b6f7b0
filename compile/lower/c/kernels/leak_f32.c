/* x becomes x + leak |x|: leaky ReLU but for a scale that the weights hold. Inlined: a ReLU, leak 1, needs no
 * multiplication, which is a function of the library where there is no FPU. */
INLINE void leak_f32(float *x, size_t n, float leak)
{
    for (size_t i = 0; i < n; ++i) {
        x[i] += leak * absolute(x[i]);
    }
}
