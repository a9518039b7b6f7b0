/* Four rows of a layer: returns where the next panel starts. A panel is one sequential stream:
 * 4 biases, then for each four inputs one word a row, four int8 weights. Bytes 1 and 3 are the
 * weights of the first pair, with the bytes below them as a fraction; behind a shift, bytes 0 and 2
 * are those of the second pair. Quantisation has accounted for the fractions. */
INLINE const uint32_t *sums4_i8(const uint32_t *weights, const uint32_t *in, size_t n_quads,
                                int32_t sum[4])
{
    for (size_t row = 0; row < 4; ++row) {
        sum[row] = signed_word(weights[row]);
    }
    for (size_t k = 0; k < n_quads; ++k, in += 2) {
        weights += 4;
        for (size_t row = 0; row < 4; ++row) {
            const uint32_t shifted = weights[row] << 8;
            sum[row] += low_half(weights[row]) * low_half(in[0]);
            sum[row] += high_half(weights[row]) * high_half(in[0]);
            sum[row] += low_half(shifted) * low_half(in[1]);
            sum[row] += high_half(shifted) * high_half(in[1]);
        }
    }
    return weights + 4;
}
