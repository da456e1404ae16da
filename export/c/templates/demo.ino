// Checks on this board that @name@ computes what it must, and measures a step.

#include <Arduino.h>
#include <@name@.h>

// In @name@_test.c beside this file: how many integers of a known sequence's outputs are wrong.
extern "C" int @name@_test(void);

static const int STEPS = 100;
static @name@_state_t state;
static @name@_input_t x[@NAME@_INPUT_SIZE];
static @name@_output_t y[@NAME@_OUTPUT_SIZE];
#if @NAME@_BIDIRECTIONAL
static @name@_work_t work[@NAME@_WORK_SIZE(1) + 1];
#endif

static void step() {
#if @NAME@_BIDIRECTIONAL
  @name@_run(&state, x, 1, y, work);
#else
  @name@_run(&state, x, 1, y);
#endif
}

void setup() {
  Serial.begin(115200);
  while (!Serial && millis() < 5000) {
  }
}

void loop() {
  int wrong = @name@_test();
  Serial.print("@name@: ");
  if (wrong == 0) {
    Serial.println("pass");
  } else {
    Serial.print("FAIL, integers that are wrong: ");
    Serial.println(wrong);
  }

  @name@_reset(&state);
  unsigned long start = micros();
  for (int n = 0; n < STEPS; n++) step();
  unsigned long elapsed = micros() - start;
  Serial.print("microseconds a step: ");
  Serial.println(elapsed / (double)STEPS);
  delay(2000);
}
