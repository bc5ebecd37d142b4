# frame of docs/install.md, with FetchContent_Declare(prospect SOURCE_DIR
cmake_minimum_required(VERSION 3.25)
project(reader LANGUAGES C CXX)
include(FetchContent)
set(CMAKE_DISABLE_FIND_PACKAGE_prospect ON)  # so that it is the source; an installed one is easier
# here
add_executable(trainer main.cpp)
target_link_libraries(trainer PRIVATE prospect::prospect)
