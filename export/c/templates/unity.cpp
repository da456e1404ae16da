#include <unity.h>
#ifdef ARDUINO
#include <Arduino.h>
#endif

extern "C" int @name@_test(void);

void setUp(void) {}
void tearDown(void) {}

static void test_every_output_is_what_it_must_be(void) { TEST_ASSERT_EQUAL_INT(0, @name@_test()); }

static int run(void) {
  UNITY_BEGIN();
  RUN_TEST(test_every_output_is_what_it_must_be);
  return UNITY_END();
}

#ifdef ARDUINO
void setup() {
  delay(2000);
  run();
}
void loop() {}
#else
int main(void) { return run(); }
#endif
