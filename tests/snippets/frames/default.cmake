# What a snippet for CMake may assume: a project with two targets of its own.
cmake_minimum_required(VERSION 3.25)
project(reader LANGUAGES C CXX)
include(FetchContent)
add_executable(trainer main.cpp)
add_executable(binding main.cpp)
# here
