/* out = in; what is not finite becomes `rejected`. */
KERNEL void finite_f32(const float *in, float *out, size_t n, float rejected)
{
    for (size_t i = 0; i < n; ++i) {
        out[i] = in[i] * 0.0f == 0.0f ? in[i] : rejected;
    }
}
