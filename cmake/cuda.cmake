# Enables CUDA where nvcc is found, with one architecture that has PTX in the binary: any newer
# device can run it. Never `native`, because a build machine need not have a GPU.
include(CheckLanguage)
check_language(CUDA)
if(CMAKE_CUDA_COMPILER)
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES 80-virtual)
  endif()
  enable_language(CUDA)
elseif(PROSPECT_CUDA STREQUAL "AUTO")
  message(STATUS "prospect: nvcc not found, so everything but the device code is built")
else()
  message(FATAL_ERROR "prospect: PROSPECT_CUDA is ${PROSPECT_CUDA}, but nvcc was not found")
endif()
