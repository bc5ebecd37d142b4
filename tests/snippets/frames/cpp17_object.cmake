# frame of docs/cpp17.md, with add_library(alignment
cmake_minimum_required(VERSION 3.25)
project(reader LANGUAGES CXX)
file(WRITE ${CMAKE_CURRENT_SOURCE_DIR}/alignment.cpp "#include <prospect/prospect.hpp>\n")
add_executable(trainer main.cpp)
# here
get_target_property(features trainer COMPILE_FEATURES)
if(NOT features STREQUAL "cxx_std_17")
  message(FATAL_ERROR "the trainer is compiled with ${features}")
endif()
