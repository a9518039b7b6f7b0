/* Leaky ReLU of two sums, shifted down to `bits` bits: the larger of x and x slope / 2^16,
 * a product that fits: at most 16 bits and 2^16. */
INLINE int32_t leaky(int32_t sum, int shift, int bits, int32_t slope)
{
    const int32_t top = 1 << (bits - 1);
    const int32_t x = between(sum >> shift, -top, top - 1);
    const int32_t small = (x * slope) >> 16;
    return x > small ? x : small;
}

INLINE uint32_t leaky_pair(int32_t a, int32_t b, int shift, int bits, int32_t slope)
{
    return pack(leaky(a, shift, bits, slope), leaky(b, shift, bits, slope));
}
