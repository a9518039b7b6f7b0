/* ReLU of two sums, shifted down and saturated to `bits` bits. */
INLINE uint32_t relu_pair(int32_t a, int32_t b, int shift, int bits)
{
    const int32_t top = (1 << (bits - 1)) - 1;
    return pack(between(a >> shift, 0, top), between(b >> shift, 0, top));
}
