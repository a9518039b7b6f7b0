INLINE int32_t four_products(int32_t sum, uint32_t weights, const uint32_t *in)
{
    const uint32_t shifted = weights << 8;
    sum += low_half(weights) * low_half(in[0]);
    sum += high_half(weights) * high_half(in[0]);
    sum += low_half(shifted) * low_half(in[1]);
    return sum + high_half(shifted) * high_half(in[1]);
}

/* Four rows of a layer: returns where the next panel starts. A panel is one sequential stream:
 * 4 biases, then for each four inputs one word a row, four int8 weights. Bytes 1 and 3 are the
 * weights of the first pair, with the bytes below them as a fraction; behind a shift, bytes 0 and 2
 * are those of the second pair. Quantisation has accounted for the fractions. */
SHARED const uint32_t *sums4_i8(const uint32_t *weights, const uint32_t *in, size_t n_quads,
                                int32_t sum[4])
{
    int32_t a = signed_word(weights[0]), b = signed_word(weights[1]);
    int32_t c = signed_word(weights[2]), d = signed_word(weights[3]);
    for (weights += 4; n_quads > 0; --n_quads, in += 2, weights += 4) {
        a = four_products(a, weights[0], in);
        b = four_products(b, weights[1], in);
        c = four_products(c, weights[2], in);
        d = four_products(d, weights[3], in);
    }
    sum[0] = a;
    sum[1] = b;
    sum[2] = c;
    sum[3] = d;
    return weights;
}
