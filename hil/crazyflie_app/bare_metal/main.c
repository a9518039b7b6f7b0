/* The bare-metal image: the policy and its device contract without the firmware around it.
 *
 * A packet is put into hppo_mailbox by whatever plays the radio (an emulator, a debugger). Either
 * that side calls hppo_device_handle itself, or it lets this loop do so.
 */
#include "hppo_device.h"

/* Arm DDI 0403 (ARMv7-M): debug watchpoint and trace unit. ST RM0090: basic timer TIM7, counting
 * microseconds as the Crazyflie firmware sets it up. */
#define DEMCR (*(volatile uint32_t *)0xE000EDFCu)
#define DEMCR_TRCENA (1u << 24)
#define DWT_CTRL (*(volatile uint32_t *)0xE0001000u)
#define DWT_CYCCNT (*(volatile uint32_t *)0xE0001004u)
#define TIM7_CNT (*(volatile uint32_t *)0x40001424u)

struct {
    uint8_t request[HPPO_PACKET_BYTES];
    uint8_t reply[HPPO_PACKET_BYTES];
    volatile uint8_t request_length; /* set last by the sender, cleared here when answered */
    volatile uint8_t reply_length;
} hppo_mailbox;

void hppo_start(void);

uint32_t hppo_port_clock_hz(void)
{
    return HPPO_CLOCK_HZ;
}

uint32_t hppo_port_cycles(void)
{
    return DWT_CYCCNT;
}

/* TIM7 has 16 bits: right as long as it is asked more often than every 65 ms of an inference. */
uint32_t hppo_port_micros(void)
{
    static uint32_t now;
    now += (uint16_t)(TIM7_CNT - now);
    return now;
}

bool hppo_port_begin(void)
{
    return true;
}

void hppo_port_end(void)
{
}

/* What main does before its loop; an emulator that makes the calls itself begins with this one. */
void hppo_start(void)
{
    DEMCR |= DEMCR_TRCENA;
    DWT_CTRL |= 1u;
    hppo_device_init();
}

int main(void)
{
    hppo_start();
    for (;;) {
        if (hppo_mailbox.request_length) {
            hppo_mailbox.reply_length = hppo_device_handle(
                hppo_mailbox.request, hppo_mailbox.request_length, hppo_mailbox.reply);
            hppo_mailbox.request_length = 0;
        }
        hppo_device_tick();
    }
}
