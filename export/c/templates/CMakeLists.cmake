# @sentence@
#
# In a project: add_subdirectory(@name@), then target_link_libraries(firmware PRIVATE edgernn_@name@).
# By itself, with its test: cmake -B build && cmake --build build && ctest --test-dir build
cmake_minimum_required(VERSION 3.16)
project(edgernn_@name@ VERSION @version@ LANGUAGES C)

add_library(edgernn_@name@ STATIC src/@name@.c)
target_include_directories(edgernn_@name@ PUBLIC include)
set_target_properties(edgernn_@name@ PROPERTIES C_STANDARD 99 C_STANDARD_REQUIRED ON)

if(CMAKE_SOURCE_DIR STREQUAL CMAKE_CURRENT_SOURCE_DIR)
  if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
    set(CMAKE_BUILD_TYPE Release CACHE STRING "Debug, Release, RelWithDebInfo or MinSizeRel" FORCE)
  endif()
  enable_testing()
  add_executable(edgernn_@name@_test test/@name@_test.c)
  target_link_libraries(edgernn_@name@_test PRIVATE edgernn_@name@)
  add_test(NAME @name@ COMMAND edgernn_@name@_test)
endif()
