/* Two observations as fixed-point numbers with fa and fb fraction bits, the first in the low half,
 * rounded towards zero and saturated to `bits` bits; adds both to `sum`, which a NaN or an infinity
 * spoils. */
INLINE int32_t to_fixed(float value, int fraction, int bits)
{
    const float top = (float)(1 << (bits - 1));
    const float scaled = value * (float)(1 << fraction);
    return (int32_t)(scaled > -top ? (scaled < top - 1.0f ? scaled : top - 1.0f) : -top);
}

INLINE uint32_t input_pair(float a, float b, int fa, int fb, int bits, float *sum)
{
    *sum += a;
    *sum += b;
    return pack(to_fixed(a, fa, bits), to_fixed(b, fb, bits));
}
