/* One inference on an observation made of the seed; the bits of its actions are the results. */
#include "policy.h"
#include <stdint.h>
#include <string.h>

uint32_t results[32];
int run(int seed);

int run(int seed)
{
    float observation[POLICY_OBS_DIM];
    float action[POLICY_ACT_DIM];
    for (int i = 0; i < POLICY_OBS_DIM; i++) {
        observation[i] = 0.125f * (float)((seed * (7 * i + 3)) % 23 - 11);
    }
    policy_step(observation, action);
    memcpy(results, action, sizeof action);
    return 0;
}
