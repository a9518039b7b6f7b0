/* The program of the bare-metal image: it sets TFLM up and keeps the policy in the image. An
 * emulator or a debugger calls policy_step. */
#include "policy.h"

int main(void)
{
    static float observation[POLICY_OBS_DIM];
    static float action[POLICY_ACT_DIM];
    for (;;) {
        policy_step(observation, action);
    }
}
