#pragma once
#include <stdint.h>
#include <time.h>

static inline uint32_t k_cycle_get_32(void) { return (uint32_t)clock(); }
#define k_cyc_to_us_near32(cycles) (cycles)
