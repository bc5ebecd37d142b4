# prospect_cuda_std(target): compiles the target's .cu files as C++20. CMake 3.25.1 does not know
# that nvcc can, ignores cxx_std_20 for them and fails on CUDA_STANDARD 20.
function(prospect_cuda_std target)
  if("cuda_std_20" IN_LIST CMAKE_CUDA_COMPILE_FEATURES)
    target_compile_features(${target} PRIVATE cuda_std_20)
  else()
    target_compile_options(${target} PRIVATE "$<$<COMPILE_LANGUAGE:CUDA>:-std=c++20>")
  endif()
endfunction()
