/* The last four rows of a layer: 4 biases, then 4 weights per input; sum + leak |sum| again. */
KERNEL void dense4_f32(const float *restrict weights, const float *restrict in,
                       float *restrict out, size_t n_in, float leak)
{
    float sum0 = weights[0], sum1 = weights[1], sum2 = weights[2], sum3 = weights[3];
    const float *const end = in + n_in;
    do {
        weights += 4;
        sum0 += weights[0] * *in;
        sum1 += weights[1] * *in;
        sum2 += weights[2] * *in;
        sum3 += weights[3] * *in;
    } while (++in != end);
    out[0] = sum0 + leak * absolute(sum0);
    out[1] = sum1 + leak * absolute(sum1);
    out[2] = sum2 + leak * absolute(sum2);
    out[3] = sum3 + leak * absolute(sum3);
}
