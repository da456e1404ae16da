#include "Arduino.h"

#include <stdio.h>
#include <time.h>

SerialPort Serial;

void SerialPort::begin(unsigned long) {}
void SerialPort::print(const char *text) { fputs(text, stdout); }
void SerialPort::println(const char *text) { puts(text); }
void SerialPort::println(int value) { printf("%d\n", value); }
void SerialPort::println(double value) { printf("%.2f\n", value); }

unsigned long micros(void) {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (unsigned long)now.tv_sec * 1000000ul + (unsigned long)(now.tv_nsec / 1000);
}
unsigned long millis(void) { return micros() / 1000; }
void delay(unsigned long) {}

int main() {
  setup();
  loop();
}
