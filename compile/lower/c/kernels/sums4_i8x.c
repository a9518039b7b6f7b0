/* Four rows of a layer: returns where the next panel starts. A panel is one sequential stream:
 * 4 biases, then for each four inputs one word a row, four int8 weights: bytes 1 and 3 are those
 * of the first pair, bytes 0 and 2 those of the second. */
INLINE const uint32_t *sums4_i8x(const uint32_t *weights, const uint32_t *in, size_t n_quads,
                                 int32_t sum[4])
{
    for (size_t row = 0; row < 4; ++row) {
        sum[row] = signed_word(weights[row]);
    }
    for (size_t k = 0; k < n_quads; ++k, in += 2) {
        weights += 4;
        for (size_t row = 0; row < 4; ++row) {
            /* Halves of 256 times the byte, so exact: the top byte carries the sign. */
            const uint32_t first = weights[row] & 0xFF00FF00u;
            const uint32_t second = weights[row] << 8 & 0xFF00FF00u;
            sum[row] += low_half(first) / 256 * low_half(in[0]);
            sum[row] += high_half(first) / 256 * high_half(in[0]);
            sum[row] += low_half(second) / 256 * low_half(in[1]);
            sum[row] += high_half(second) / 256 * high_half(in[1]);
        }
    }
    return weights + 4;
}
