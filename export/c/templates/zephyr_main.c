#include <zephyr/kernel.h>
#include <zephyr/sys/printk.h>

/* In @name@_test.c: how many integers of a known sequence's outputs are wrong. */
int @name@_test(void);

int main(void) {
  uint32_t start = k_cycle_get_32();
  int wrong = @name@_test();
  uint32_t cycles = k_cycle_get_32() - start;

  if (wrong == 0) {
    printk("@name@: pass\n");
  } else {
    printk("@name@: FAIL, integers that are wrong: %d\n", wrong);
  }
  printk("microseconds for the sequence: %u\n", (unsigned int)k_cyc_to_us_near32(cycles));
  return 0;
}
