/* A word of weights times its inputs, added to a row's sum: two int16 weights. */
INLINE int32_t products(int32_t sum, uint32_t weights, const uint32_t *in)
{
    sum += low_half(weights) * low_half(*in);
    return sum + high_half(weights) * high_half(*in);
}
