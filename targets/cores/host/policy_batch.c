/* Many calls of policy_step for one call from outside: observations and actions row by row. */
#include "policy.h"

void policy_batch(const float *observations, float *actions, int count);

void policy_batch(const float *observations, float *actions, int count)
{
    for (int i = 0; i < count; i++) {
        policy_step(&observations[i * POLICY_OBS_DIM], &actions[i * POLICY_ACT_DIM]);
    }
}
