/* One observation as a whole number with `fraction` fraction bits, rounded towards zero and saturated
 * to `bits` bits, from the bits of the float: in software each operation on it would be a call. What
 * could spoil `sum` is added to it: a NaN, an infinity, or numbers so large that they add up to one. */
SHARED int32_t to_fixed(float value, int fraction, int bits, float *sum)
{
    const uint32_t seen = bits_of(value);
    const int32_t exponent = (int32_t)(seen >> 23 & 0xFFu), shift = 150 - exponent - fraction;
    const uint32_t mantissa = (seen & 0x7FFFFFu) | 0x800000u; /* shifted by 8 it saturates */
    const int32_t size = shift > 31 ? 0 : (int32_t)(mantissa >> (shift < 8 ? 8 : shift));
    const int32_t top = 1 << (bits - 1);
    if (exponent > 127 + 96) {
        *sum += value;
    }
    return between(seen >> 31 ? -size : size, -top, top - 1);
}

/* Two observations, with fa and fb fraction bits, the first in the low half. */
INLINE uint32_t input_pair(float a, float b, int fa, int fb, int bits, float *sum)
{
    const int32_t low = to_fixed(a, fa, bits, sum);
    return pack(low, to_fixed(b, fb, bits, sum));
}

INLINE int is_finite(float sum)
{
    return (bits_of(sum) >> 23 & 0xFFu) != 0xFFu;
}
