/* Four rows of a layer: returns where the next panel starts. A panel is one sequential stream:
 * 4 biases, then for each pair of inputs one word a row, two int16 weights. */
INLINE const uint32_t *sums4_i16(const uint32_t *weights, const uint32_t *in, size_t n_pairs,
                                 int32_t sum[4])
{
    for (size_t row = 0; row < 4; ++row) {
        sum[row] = signed_word(weights[row]);
    }
    for (size_t k = 0; k < n_pairs; ++k) {
        weights += 4;
        for (size_t row = 0; row < 4; ++row) {
            sum[row] += low_half(weights[row]) * low_half(in[k]);
            sum[row] += high_half(weights[row]) * high_half(in[k]);
        }
    }
    return weights + 4;
}
