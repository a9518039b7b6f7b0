/* Sums with `fraction` fraction bits as floats: their exponents, lowered. */
KERNEL void to_f32(const int32_t *in, float *out, size_t n, int fraction)
{
    for (size_t i = 0; i < n; ++i) {
        const uint32_t bits = bits_of((float)in[i]);
        out[i] = float_of(in[i] == 0 ? bits : bits - ((uint32_t)fraction << 23));
    }
}
