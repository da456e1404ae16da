/* The part of the Unity test framework that the PlatformIO test uses. */
#pragma once
#include <stdio.h>

static int unity_failures;

#define UNITY_BEGIN() (unity_failures = 0)
#define UNITY_END() unity_failures
#define RUN_TEST(test) test()
#define TEST_ASSERT_EQUAL_INT(expected, actual) (unity_failures += (expected) != (actual))
