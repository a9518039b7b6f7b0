/* A word of weights times its inputs, added to a row's sum: four int8 weights, bytes 1 and 3 those of
 * the first pair, bytes 0 and 2 those of the second. */
INLINE int32_t products(int32_t sum, uint32_t weights, const uint32_t *in)
{
    sum += (low_half(weights) >> 8) * low_half(in[0]);
    sum += (signed_word(weights) >> 24) * high_half(in[0]);
    sum += (low_half(weights << 8) >> 8) * low_half(in[1]);
    return sum + (signed_word(weights << 8) >> 24) * high_half(in[1]);
}
