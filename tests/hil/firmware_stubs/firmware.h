/* The few declarations of the Crazyflie firmware that the app uses, written for the tests: they
 * let hppo_controller.c compile and run on this machine. The names and meanings are the firmware's. */
#ifndef FIRMWARE_H
#define FIRMWARE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint32_t stabilizerStep_t;
struct vec3 { float x, y, z; };
typedef struct { struct vec3 gyro; } sensorData_t;
typedef struct { float x, y, z, w; } quaternion_t;
typedef struct {
    quaternion_t attitudeQuaternion;
    struct vec3 position, velocity;
    struct { float roll, pitch, yaw; } attitude;
} state_t;
typedef enum { modeDisable, modeAbs, modeVelocity } stab_mode_t;
typedef struct {
    uint32_t timestamp;
    struct vec3 position, velocity;
    bool velocity_body;
    struct { stab_mode_t x, y, z; } mode;
} setpoint_t;
typedef enum { controlModeLegacy, controlModeForceTorque, controlModeForce } control_mode_t;
#define STABILIZER_NR_OF_MOTORS 4
typedef struct {
    float normalizedForces[STABILIZER_NR_OF_MOTORS];
    control_mode_t controlMode;
} control_t;
#define RATE_DO_EXECUTE(hz, step) (((step) % (1000 / (hz))) == 0)

void appMain(void);
void controllerOutOfTreeInit(void);
bool controllerOutOfTreeTest(void);
void controllerOutOfTree(control_t *, const setpoint_t *, const sensorData_t *, const state_t *,
                         const stabilizerStep_t);
void controllerPidInit(void);
bool controllerPidTest(void);
void controllerPid(control_t *, const setpoint_t *, const sensorData_t *, const state_t *,
                   const stabilizerStep_t);

bool supervisorIsFlying(void);
void vTaskSuspendAll(void);
int xTaskResumeAll(void);
void positionControllerResetAllPID(float, float, float);
void attitudeControllerResetAllPID(float, float, float);
uint32_t xTaskGetTickCount(void);
#define M2T(milliseconds) ((uint32_t)(milliseconds))
uint64_t usecTimestamp(void);
#define APPCHANNEL_WAIT_FOREVER (-1)
size_t appchannelReceiveDataPacket(void *, size_t, int);
void appchannelSendDataPacketBlock(void *, size_t);

extern uint32_t SystemCoreClock;
typedef struct { uint32_t CTRL, CYCCNT; } DWT_t;
typedef struct { uint32_t DEMCR; } CoreDebug_t;
extern DWT_t stub_dwt;
extern CoreDebug_t stub_core_debug;
#define DWT (&stub_dwt)
#define CoreDebug (&stub_core_debug)
#define CoreDebug_DEMCR_TRCENA_Msk (1u << 24)
#define DWT_CTRL_CYCCNTENA_Msk 1u

#define LOG_GROUP_START(name)
#define LOG_ADD(type, name, address)
#define LOG_GROUP_STOP(name)
#define PARAM_GROUP_START(name)
#define PARAM_ADD(type, name, address)
#define PARAM_GROUP_STOP(name)

#endif
