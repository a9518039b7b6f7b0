/* Eight rows at a time. A panel is one sequential stream: 8 biases, then 8 weights per input.
 * Each sum becomes sum + leak |sum|: leaky ReLU but for a scale, ReLU at 1, nothing at 0. */
KERNEL void dense8_f32(const float *restrict weights, const float *restrict in,
                       float *restrict out, size_t n_in, size_t n_panels, float leak)
{
    for (; n_panels > 0; --n_panels, out += 8) {
        const float *x = in;
        float sum0 = weights[0], sum1 = weights[1], sum2 = weights[2], sum3 = weights[3];
        float sum4 = weights[4], sum5 = weights[5], sum6 = weights[6], sum7 = weights[7];
        do {
            weights += 8;
            sum0 += weights[0] * *x;
            sum1 += weights[1] * *x;
            sum2 += weights[2] * *x;
            sum3 += weights[3] * *x;
            sum4 += weights[4] * *x;
            sum5 += weights[5] * *x;
            sum6 += weights[6] * *x;
            sum7 += weights[7] * *x;
        } while (++x != in + n_in);
        weights += 8;
        out[0] = sum0 + leak * absolute(sum0);
        out[1] = sum1 + leak * absolute(sum1);
        out[2] = sum2 + leak * absolute(sum2);
        out[3] = sum3 + leak * absolute(sum3);
        out[4] = sum4 + leak * absolute(sum4);
        out[5] = sum5 + leak * absolute(sum5);
        out[6] = sum6 + leak * absolute(sum6);
        out[7] = sum7 + leak * absolute(sum7);
    }
}
