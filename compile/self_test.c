/* The policy's golden vectors as a program: main returns how many do not match, 0 when all do.
 * A host reports that as the exit code; on a bare core a debugger finds it in policy_mismatches. */
#include "policy_golden.h"

volatile int policy_mismatches = -1; /* not run yet */

int main(void)
{
    policy_mismatches = policy_self_test();
    return policy_mismatches;
}
