/* One observation as a whole number, rounded towards zero and saturated to -top - 1 .. top, from the
 * bits of the float, as in software each operation on it would be a call: `shift` - exponent is how
 * far down the mantissa has its place. What could spoil `sum` is added to it: a NaN, an infinity, or
 * numbers so large that they add up to one. */
INLINE int32_t to_fixed(float value, int32_t shift, int32_t top, float *sum)
{
    const uint32_t seen = bits_of(value);
    const int32_t exponent = (int32_t)(seen >> 23 & 0xFFu);
    const int32_t sign = -(int32_t)(seen >> 31); /* x ^ -1 is -1 - x */
    shift -= exponent;
    if (shift < 16) {
        if (exponent > 127 + 96) {
            *sum += value;
        }
        return top ^ sign;
    }
    if (shift > 31) {
        return 0;
    }
    return between((int32_t)((seen << 8 | 0x80000000u) >> shift) + sign, -1, top) ^ sign;
}

/* n observations in pairs, the first in the low half. Returns the sum of what could spoil it. */
KERNEL float input_pairs(const float *in, const uint8_t *shift, uint32_t *out, size_t n, int bits)
{
    const int32_t top = (1 << (bits - 1)) - 1;
    float sum = 0.0f;
    for (size_t i = 0; i < n; i += 2) {
        const int32_t low = to_fixed(in[i], shift[i], top, &sum);
        *out++ = pack(low, to_fixed(i + 1 < n ? in[i + 1] : 0.0f, shift[i + 1], top, &sum));
    }
    return sum;
}

INLINE int is_finite(float sum)
{
    return (bits_of(sum) >> 23 & 0xFFu) != 0xFFu;
}
