/* The part of Arduino's core that the example uses, on the host. Link with core.cpp. */
#pragma once
#include <stdint.h>

extern "C" {
void setup(void);
void loop(void);
unsigned long millis(void);
unsigned long micros(void);
void delay(unsigned long milliseconds);
}

struct SerialPort {
  void begin(unsigned long baud);
  explicit operator bool() const { return true; }
  void print(const char *text);
  void println(const char *text);
  void println(int value);
  void println(double value);
};
extern SerialPort Serial;
