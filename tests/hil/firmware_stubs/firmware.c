#include "firmware.h"

#include <setjmp.h>

uint32_t SystemCoreClock = 168000000u;
DWT_t stub_dwt;
CoreDebug_t stub_core_debug;
bool stub_flying;
int stub_suspended;
int stub_resets;
uint32_t stub_ticks;
static jmp_buf app_waits;

void stub_run_app(void);

/* The app's loop never ends: it is left where it waits for its first packet. */
void stub_run_app(void)
{
    if (setjmp(app_waits) == 0) {
        appMain();
    }
}

size_t appchannelReceiveDataPacket(void *buffer, size_t size, int timeout)
{
    (void)buffer;
    (void)size;
    (void)timeout;
    longjmp(app_waits, 1);
}

void appchannelSendDataPacketBlock(void *data, size_t size)
{
    (void)data;
    (void)size;
}

void controllerPidInit(void)
{
}

bool controllerPidTest(void)
{
    return true;
}

/* Leaves a mark that the policy's output would overwrite. */
void controllerPid(control_t *control, const setpoint_t *setpoint, const sensorData_t *sensors,
                   const state_t *state, const stabilizerStep_t step)
{
    (void)setpoint;
    (void)sensors;
    (void)state;
    (void)step;
    control->controlMode = controlModeLegacy;
    for (int i = 0; i < STABILIZER_NR_OF_MOTORS; i++) {
        control->normalizedForces[i] = -1.0f;
    }
}

void positionControllerResetAllPID(float x, float y, float z)
{
    (void)x;
    (void)y;
    (void)z;
    stub_resets++;
}

void attitudeControllerResetAllPID(float roll, float pitch, float yaw)
{
    (void)roll;
    (void)pitch;
    (void)yaw;
}

uint32_t xTaskGetTickCount(void)
{
    return stub_ticks;
}

bool supervisorIsFlying(void)
{
    return stub_flying;
}

void vTaskSuspendAll(void)
{
    stub_suspended++;
}

int xTaskResumeAll(void)
{
    stub_suspended--;
    return 0;
}

uint64_t usecTimestamp(void)
{
    return 0;
}
