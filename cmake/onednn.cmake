# prospect::onednn: the headers with oneDNN's matrix product (cpu/gemm_onednn.hpp), where Debian's
# libdnnl-dev or another oneDNN is found, and Eigen. Where it runs on OpenMP's threads, that too: it is
# told to run on one.
if(NOT TARGET prospect::onednn)
  find_package(Eigen3 3.4 QUIET NO_MODULE)
  find_package(dnnl QUIET CONFIG)
  if(Eigen3_FOUND AND dnnl_FOUND)
    add_library(prospect::onednn INTERFACE IMPORTED GLOBAL)
    target_link_libraries(prospect::onednn INTERFACE prospect::prospect Eigen3::Eigen DNNL::dnnl)
    if(DNNL_CPU_RUNTIME STREQUAL "OMP")
      find_package(OpenMP QUIET COMPONENTS CXX)
      if(OpenMP_CXX_FOUND)
        target_link_libraries(prospect::onednn INTERFACE ${OpenMP_CXX_LIBRARIES})
      else()
        target_link_libraries(prospect::onednn INTERFACE gomp)  # clang without libomp
      endif()
    endif()
  endif()
endif()
