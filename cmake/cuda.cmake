# Enables CUDA where nvcc is found, for two architectures as PTX, which any newer device can run: 9.0
# knows clusters of blocks, 8.0 does without. Never `native`, because a build machine need not have a
# GPU; name your devices' own (CMAKE_CUDA_ARCHITECTURES=90a, ...) to save the first start's compiling.
include(CheckLanguage)
check_language(CUDA)
if(CMAKE_CUDA_COMPILER)
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES 80-virtual 90-virtual)
    set(PROSPECT_CUDA_ARCHITECTURES_DEFAULT ON)
  endif()
  enable_language(CUDA)
  find_package(CUDAToolkit REQUIRED)
elseif(PROSPECT_CUDA STREQUAL "AUTO")
  message(STATUS "prospect: nvcc not found, so everything but the device code is built")
else()
  message(FATAL_ERROR "prospect: PROSPECT_CUDA is ${PROSPECT_CUDA}, but nvcc was not found")
endif()
