INLINE int32_t two_products(int32_t sum, uint32_t weights, const uint32_t *in)
{
    sum += low_half(weights) * low_half(*in);
    return sum + high_half(weights) * high_half(*in);
}

/* Four rows of a layer: returns where the next panel starts. A panel is one sequential stream:
 * 4 biases, then for each pair of inputs one word a row, two int16 weights. */
SHARED const uint32_t *sums4_i16(const uint32_t *weights, const uint32_t *in, size_t n_pairs,
                                 int32_t sum[4])
{
    int32_t a = signed_word(weights[0]), b = signed_word(weights[1]);
    int32_t c = signed_word(weights[2]), d = signed_word(weights[3]);
    for (weights += 4; n_pairs > 0; --n_pairs, ++in, weights += 4) {
        a = two_products(a, weights[0], in);
        b = two_products(b, weights[1], in);
        c = two_products(c, weights[2], in);
        d = two_products(d, weights[3], in);
    }
    sum[0] = a;
    sum[1] = b;
    sum[2] = c;
    sum[3] = d;
    return weights;
}
