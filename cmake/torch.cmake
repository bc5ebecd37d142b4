# prospect_torch: libtorch as a target, where it is found: Debian's (libtorch-dev), one that
# CMAKE_PREFIX_PATH names (a variable, or of the environment), or a Python wheel's, whose folder is
#   -DCMAKE_PREFIX_PATH="$(python -c 'import torch; print(torch.utils.cmake_prefix_path)')"
# Its own package is not asked: it adds flags to every target, and wants CUDA where torch was built
# with it. Threads of at::parallel_for are OpenMP's, torch's own runtime's.
if(NOT TARGET prospect_torch)
  set(torch_roots)
  string(REPLACE ":" ";" torch_prefixes "$ENV{CMAKE_PREFIX_PATH}")
  foreach(prefix IN LISTS CMAKE_PREFIX_PATH torch_prefixes)
    if(prefix MATCHES "/share/cmake/?$")
      list(APPEND torch_roots ${prefix}/../..)
    endif()
  endforeach()
  find_path(PROSPECT_TORCH_INCLUDE torch/csrc/autograd/custom_function.h HINTS ${torch_roots}
    PATH_SUFFIXES include)
  find_path(PROSPECT_TORCH_API_INCLUDE torch/optim/adam.h
    HINTS ${PROSPECT_TORCH_INCLUDE}/torch/csrc/api/include)
  get_filename_component(torch_root "${PROSPECT_TORCH_INCLUDE}" DIRECTORY)
  foreach(library IN ITEMS torch_cpu c10)
    find_library(PROSPECT_TORCH_${library} ${library} HINTS ${torch_root}/lib ${torch_roots}
      PATH_SUFFIXES lib)
  endforeach()
  mark_as_advanced(PROSPECT_TORCH_INCLUDE PROSPECT_TORCH_API_INCLUDE PROSPECT_TORCH_torch_cpu
    PROSPECT_TORCH_c10)
  if(PROSPECT_TORCH_INCLUDE AND PROSPECT_TORCH_API_INCLUDE AND PROSPECT_TORCH_torch_cpu
      AND PROSPECT_TORCH_c10)
    # One whose strings are of another ABI, as some wheels' are, does not link; and clang does not take
    # 1.13's headers as C++20.
    include(CheckCXXSourceCompiles)
    set(CMAKE_REQUIRED_FLAGS -std=c++20)
    set(CMAKE_REQUIRED_INCLUDES ${PROSPECT_TORCH_INCLUDE})
    set(CMAKE_REQUIRED_LIBRARIES ${PROSPECT_TORCH_torch_cpu} ${PROSPECT_TORCH_c10})
    check_cxx_source_compiles("#include <ATen/ATen.h>
      int main() { return static_cast<int>(c10::Device{\"cpu\"}.str().size()) - 3; }"
      PROSPECT_TORCH_LINKS)
    unset(CMAKE_REQUIRED_FLAGS)
    unset(CMAKE_REQUIRED_INCLUDES)
    unset(CMAKE_REQUIRED_LIBRARIES)
  endif()
  if(PROSPECT_TORCH_LINKS)
    add_library(prospect_torch INTERFACE IMPORTED GLOBAL)
    target_include_directories(prospect_torch
      INTERFACE ${PROSPECT_TORCH_INCLUDE} ${PROSPECT_TORCH_API_INCLUDE})
    target_link_libraries(prospect_torch
      INTERFACE ${PROSPECT_TORCH_torch_cpu} ${PROSPECT_TORCH_c10})
    # Debian's logs through glog, from headers as well.
    file(STRINGS ${PROSPECT_TORCH_INCLUDE}/c10/macros/cmake_macros.h torch_on_glog
      REGEX "^#define C10_USE_GLOG")
    if(torch_on_glog)
      target_link_libraries(prospect_torch INTERFACE glog)
    endif()
    # One that was built with CUDA, for adapters/torch.cuh.
    find_library(PROSPECT_TORCH_torch_cuda torch_cuda HINTS ${torch_root}/lib)
    find_library(PROSPECT_TORCH_c10_cuda c10_cuda HINTS ${torch_root}/lib)
    mark_as_advanced(PROSPECT_TORCH_torch_cuda PROSPECT_TORCH_c10_cuda)
    if(PROSPECT_TORCH_torch_cuda AND PROSPECT_TORCH_c10_cuda)
      add_library(prospect_torch_cuda INTERFACE IMPORTED GLOBAL)
      target_link_libraries(prospect_torch_cuda INTERFACE
        prospect_torch -Wl,--no-as-needed ${PROSPECT_TORCH_torch_cuda} ${PROSPECT_TORCH_c10_cuda})
    endif()
    if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")  # clang would bring a second OpenMP
      target_compile_options(prospect_torch INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-fopenmp>)
      target_compile_definitions(prospect_torch INTERFACE EIGEN_DONT_PARALLELIZE)
      target_link_options(prospect_torch INTERFACE -fopenmp)
    endif()
  endif()
endif()
