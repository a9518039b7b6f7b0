/* A word of weights times its inputs, added to a row's sum: four int8 weights. Bytes 1 and 3 are those
 * of the first pair, with the bytes below them as a fraction; behind a shift, bytes 0 and 2 are those
 * of the second pair. Quantisation has accounted for the fractions. */
INLINE int32_t products(int32_t sum, uint32_t weights, const uint32_t *in)
{
    const uint32_t shifted = weights << 8;
    sum += low_half(weights) * low_half(in[0]);
    sum += high_half(weights) * high_half(in[0]);
    sum += low_half(shifted) * low_half(in[1]);
    return sum + high_half(shifted) * high_half(in[1]);
}
